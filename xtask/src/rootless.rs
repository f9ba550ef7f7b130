//! Sandboxes of a user who is not root.

use crate::bundle::{Bundle, Runtime, Scratch};
use crate::proc::{self, Pid};
use crate::run::{self, Output};
use crate::{posture, rootfs};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// A user whom no machine has, nor gives subordinate ids.
const USER: u32 = 65_533;

/// The user, with a folder for state.
struct User<'a> {
    runtime: &'a Runtime,
    home: Scratch,
}

impl<'a> User<'a> {
    fn new(runtime: &'a Runtime) -> Result<Self> {
        let home = Scratch::new()?;
        chown(&home.0, Some(USER), Some(USER))?;
        Ok(Self { runtime, home })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&self.runtime.path);
        // Control groups are left alone without a word of it.
        let flags = self.runtime.flags.iter().filter(|flag| *flag != "--ignore-cgroups");
        command.arg("--root").arg(self.home.0.join("state")).args(flags).args(["--rootless"]).args(args);
        command.current_dir("/");
        command
    }

    fn runsc(&self, args: &[&str]) -> Result<Output> {
        run::output(&mut self.command(args), LIMIT)
    }

    /// Runs a verb that must succeed; what it prints.
    fn must(&self, args: &[&str]) -> Result<String> {
        let out = self.runsc(args)?;
        ensure!(out.code == 0 && !out.timed_out, "{}: {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout)
    }
}

/// `do`.
pub(crate) fn program(runtime: &Runtime) -> Result<()> {
    let user = User::new(runtime)?;
    let script = "id -u; stat -c %u /etc/passwd; cat /etc/shadow > /dev/null 2>&1 || echo closed; \
                  echo x > /tmp/rootless-made && chown 12:13 /tmp/rootless-made && stat -c %u:%g /tmp/rootless-made; \
                  ls -A /proc/1/root > /dev/null && grep -c . /proc/1/status | grep -q . && echo own";
    let out = user.must(&["do", "--", "sh", "-c", script])?;
    ensure!(out == "0\n65534\nclosed\n12:13\nown\n", "{out:?}");
    ensure!(!std::path::Path::new("/tmp/rootless-made").exists(), "the host's files change");
    Ok(())
}

/// `create` to `delete`, and what its processes may do.
pub(crate) fn container(runtime: &Runtime) -> Result<()> {
    let user = User::new(runtime)?;
    let bundle = Bundle::scratch(runtime, &rootfs::ensure(false)?, &["sleep", "1000"], false)?;
    let (dir, id) = (bundle.dir.display().to_string(), run::unique("rootless"));
    let before = proc::descendants();
    let lived = live(&user, &dir, &id, &before);
    let deleted = user.must(&["delete", "--force", &id]);
    lived?;
    deleted?;
    run::until("its processes end", Duration::from_secs(5), || {
        let left: BTreeSet<Pid> = proc::descendants().difference(&before).copied().collect();
        left.iter().for_each(|pid| proc::reap(*pid));
        left.is_empty().then_some(())
    })
}

fn live(user: &User<'_>, dir: &str, id: &str, before: &BTreeSet<Pid>) -> Result<()> {
    user.must(&["create", "--bundle", dir, id])?;
    user.must(&["start", id])?;
    let out = user.must(&["exec", id, "sh", "-c", "id -u; tr '\\0' ' ' < /proc/1/cmdline"])?;
    ensure!(out == "0\nsleep 1000 ", "exec prints {out:?}");
    user.must(&["exec", "--detach", id, "sleep", "1000"])?;
    let pids: BTreeSet<Pid> = proc::descendants().difference(before).copied().collect();
    ensure!(pids.len() > 3, "its processes are {pids:?}");
    for &pid in &pids {
        posture::confined(pid, &USER.to_string()).with_context(|| proc::describe(pid))?;
    }
    let list = user.must(&["list", "--quiet"])?;
    ensure!(list.trim() == id, "list prints {list:?}");
    user.must(&["kill", id, "KILL"])?;
    let state = || user.must(&["state", id]).is_ok_and(|text| text.contains("stopped")).then_some(());
    run::until("it is stopped", LIMIT, state)
}

/// A configuration that maps the user to root, as `runc spec --rootless` writes it.
pub(crate) fn mapped(runtime: &Runtime) -> Result<()> {
    let user = User::new(runtime)?;
    let script = "tr -s ' ' < /proc/self/uid_map; touch /home/made; stat -c %u:%g /home/made /etc/passwd; \
                  chown 1 /home/made 2>&1 | grep -o Invalid.*";
    let bundle = Bundle::scratch(runtime, &rootfs::ensure(false)?, &["sh", "-c", script], false)?;
    let path = bundle.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let linux = config.pointer_mut("/linux").and_then(Value::as_object_mut).context("config.json")?;
    for kind in ["uidMappings", "gidMappings"] {
        linux.insert(kind.to_owned(), json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    }
    let mut add = |list: &str, value: Value| {
        let list = config.pointer_mut(list).and_then(Value::as_array_mut).context("config.json")?;
        list.push(value);
        anyhow::Ok(())
    };
    add("/linux/namespaces", json!({"type": "user"}))?;
    let home = json!({"destination": "/home", "type": "bind", "source": user.home.0, "options": ["rbind"]});
    add("/mounts", home)?;
    std::fs::write(&path, config.to_string())?;
    let id = run::unique("rootless");
    let out = user.must(&["run", "--bundle", &bundle.dir.display().to_string(), &id])?;
    ensure!(out == " 0 65533 1\n0:0\n65534:65534\nInvalid argument\n", "{out:?}");
    let meta = std::fs::metadata(user.home.0.join("made"))?;
    ensure!((meta.uid(), meta.gid()) == (USER, USER), "the file is owned by {}:{}", meta.uid(), meta.gid());
    Ok(())
}

/// A state directory that somebody else could write to, or made.
pub(crate) fn foreign_state(runtime: &Runtime) -> Result<()> {
    let user = User::new(runtime)?;
    let state = user.home.0.join("state");
    std::fs::create_dir(&state)?;
    let out = user.runsc(&["do", "true"])?;
    ensure!(out.code != 0 && out.stderr.contains("only you can write to"), "{}: {}", out.code, out.stderr);
    chown(&state, Some(USER), Some(USER))?;
    user.must(&["do", "true"]).map(drop)
}
