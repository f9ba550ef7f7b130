//! A dockerd with its own data, socket and containerd.

use crate::bundle::{Runtime, Scratch};
use crate::run::{self, Output};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How long a command of docker may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// The image of the tests: the Debian root.
pub(super) const IMAGE: &str = "sentrybox-test";

/// A dockerd; ended with the value.
#[derive(Debug)]
pub(super) struct Dockerd {
    child: Child,
    /// Where it keeps what it needs while it runs.
    exec: PathBuf,
    /// Where it listens.
    pub(super) socket: String,
    /// A folder for files of the tests.
    pub(super) scratch: Scratch,
}

/// Debian's client, where the machine has another one as well.
fn client() -> &'static str {
    if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" }
}

impl Dockerd {
    /// Starts it, with the runtime under test as the default.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn start(runtime: &Runtime) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = run::target("docker")?;
        let own = run::unique("/run/sentrybox-docker");
        let socket = format!("unix://{own}.sock");
        let exec = PathBuf::from(format!("{own}.exec"));
        let log = std::fs::File::create(data.join("dockerd.log"))?;
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(data.join("data")).arg("--exec-root").arg(&exec);
        command.arg("--pidfile").arg(scratch.0.join("pid")).arg("-H").arg(&socket);
        // Raw sockets as with runc: tests compare what programs see with both.
        let program = scratch.0.join("runsc-net-raw");
        std::fs::write(&program, format!("#!/bin/sh\nexec '{}' --net-raw \"$@\"\n", runtime.path.display()))?;
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        command.arg("--add-runtime").arg(format!("runsc={}", program.display()));
        command.args(["--default-runtime=runsc", "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start dockerd")?;
        let daemon = Self { child, exec, socket, scratch };
        run::until("dockerd answers (see target/docker/dockerd.log)", LIMIT, || {
            daemon.docker(&["version"]).ok().filter(|out| out.code == 0)
        })?;
        Ok(daemon)
    }

    /// Makes sure of the image.
    ///
    /// # Errors
    /// When it cannot be imported.
    pub(super) fn image(&self, root: &Path) -> Result<()> {
        if self.docker(&["image", "inspect", IMAGE])?.code == 0 {
            return Ok(());
        }
        let script = "tar -C \"$1\" --exclude=./usr/lib/go* --exclude=./usr/share/go* -c . | docker -H \"$2\" import - \"$3\"";
        let mut import = Command::new("sh");
        import.args(["-c", script, "sh"]).arg(root).args([&self.socket, IMAGE]);
        let out = run::output(&mut import, Duration::from_secs(240))?;
        ensure!(out.code == 0, "docker import: {}", out.stderr.trim());
        Ok(())
    }

    /// A command of the client.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(client());
        command.arg("-H").arg(&self.socket).args(args).env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs a command of the client.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn docker(&self, args: &[&str]) -> Result<Output> {
        run::output(&mut self.command(args), LIMIT)
    }

    /// Runs a command that must succeed: what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn ok(&self, args: &[&str]) -> Result<String> {
        let out = self.docker(args)?;
        ensure!(out.code == 0, "docker {}: {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout.trim_end().to_owned())
    }

    /// Runs a shell script in a container of its own that must succeed: what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn sh(&self, flags: &[&str], script: &str) -> Result<String> {
        self.ok(&[&["run", "--rm", "--network=none"], flags, &[IMAGE, "sh", "-c", script]].concat())
    }

    /// Starts a container in the background that runs a shell script; removed with the value.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn background(&self, flags: &[&str], script: &str) -> Result<Container<'_>> {
        let args = [&["run", "-d", "--network=none"], flags, &[IMAGE, "sh", "-c", script]].concat();
        Ok(Container { daemon: self, id: self.ok(&args)? })
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(run::wait_deadline(&mut self.child, Duration::from_secs(20)));
        drop(std::fs::remove_dir_all(&self.exec));
    }
}

/// A container, removed with the value.
#[derive(Debug)]
pub(super) struct Container<'a> {
    daemon: &'a Dockerd,
    /// Its name.
    pub(super) id: String,
}

impl Container<'_> {
    /// A field of `docker inspect`.
    ///
    /// # Errors
    /// When there is no such container or field.
    pub(super) fn inspect(&self, field: &str) -> Result<String> {
        self.daemon.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), &self.id])
    }

    /// Runs a shell script in it that must succeed: what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn sh(&self, script: &str) -> Result<String> {
        self.daemon.ok(&["exec", &self.id, "sh", "-c", script])
    }

    /// Waits until it has written this.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn wrote(&self, text: &str) -> Result<()> {
        let what = format!("the container writes {text:?}");
        run::until(&what, LIMIT, || {
            let out = self.daemon.docker(&["logs", &self.id]).ok()?;
            out.stdout.contains(text).then_some(())
        })
    }

    /// Waits for a state.
    ///
    /// # Errors
    /// When it does not come.
    pub(super) fn becomes(&self, field: &str, value: &str) -> Result<()> {
        let what = format!("{field} becomes {value}");
        run::until(&what, LIMIT, || self.inspect(field).ok().filter(|now| now == value)).map(drop)
    }

    /// A file of its control group on the host.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn group_file(&self, controller: &str, file: &str) -> Result<String> {
        let pid = self.inspect(".State.Pid")?;
        let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = table.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            names.split(',').any(|name| name == controller || name.is_empty()).then_some(path)
        });
        let path = path.context("the sentry is in no control group")?;
        let dirs = [format!("/sys/fs/cgroup/{controller}{path}"), format!("/sys/fs/cgroup{path}")];
        let text = dirs.iter().find_map(|dir| std::fs::read_to_string(format!("{dir}/{file}")).ok());
        Ok(text.with_context(|| format!("no {file} in {dirs:?}"))?.trim().to_owned())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        drop(self.daemon.docker(&["rm", "-f", "-v", &self.id]));
    }
}
