//! Files that host and container share.

use super::Case;
use super::daemon::{Dockerd, LIMIT};
use crate::run;
use anyhow::{Result, ensure};

/// The cases.
pub(super) const CASES: &[Case] = &[
    ("cp into a container", cp_in),
    ("cp out of a container", cp_out),
    ("commit and diff", commit),
    ("bind mounts, read-write and read-only", bind_mounts),
    ("a volume, seen from both sides", volume),
    ("a single file is mounted", single_file),
    ("export", export),
];

const FOREVER: &str = "while :; do sleep 0.1; done";

fn cp_in(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], FOREVER)?;
    // The container has looked for the name, and has read another file, before they are written.
    container.sh("cat /root/new; echo old > /root/old; cat /root/old > /dev/null; ls /root")?;
    for name in ["new", "old"] {
        let file = docker.scratch.0.join(name);
        std::fs::write(&file, format!("{name} from the host\n"))?;
        docker.ok(&["cp", &file.display().to_string(), &format!("{}:/root/{name}", container.id)])?;
        let seen = container.sh(&format!("cat /root/{name}"))?;
        ensure!(seen == format!("{name} from the host"), "{name} is {seen:?} inside");
    }
    Ok(())
}

fn cp_out(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], FOREVER)?;
    container.sh("mkdir /root/d; echo made inside > /root/d/f; ln -s f /root/d/l")?;
    let to = docker.scratch.0.join("out");
    docker.ok(&["cp", &format!("{}:/root/d", container.id), &to.display().to_string()])?;
    ensure!(std::fs::read_to_string(to.join("f"))? == "made inside\n", "another text");
    ensure!(std::fs::read_link(to.join("l"))?.as_os_str() == "f", "another link");
    Ok(())
}

fn commit(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], "echo text > /kept; rm /etc/motd; echo done; sleep 1000")?;
    container.wrote("done")?;
    let changes = docker.ok(&["diff", &container.id])?;
    ensure!(changes.contains("A /kept") && changes.contains("D /etc/motd"), "diff: {changes}");
    docker.ok(&["commit", &container.id, "sentrybox-committed"])?;
    let run = ["run", "--rm", "--network=none", "sentrybox-committed", "sh", "-c", "cat /kept; ls /etc/motd"];
    let out = docker.docker(&run)?;
    docker.ok(&["rmi", "-f", "sentrybox-committed"])?;
    ensure!(out.stdout == "text\n" && out.code == 2, "{out:?}");
    Ok(())
}

fn bind_mounts(docker: &Dockerd) -> Result<()> {
    let dir = docker.scratch.0.join("bind");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("there"), "before\n")?;
    let (rw, ro) = (format!("-v={}:/rw", dir.display()), format!("-v={}:/ro:ro", dir.display()));
    let script = "cat /ro/there; echo inside > /rw/made; cat /ro/made; touch /ro/x 2>&1; mv /rw/there /rw/moved; ls /ro";
    let got = docker.sh(&[&rw, &ro], script)?;
    let want = "before\ninside\ntouch: cannot touch '/ro/x': Read-only file system\nmade\nmoved";
    ensure!(got == want, "{got:?}");
    ensure!(std::fs::read_to_string(dir.join("made"))? == "inside\n", "not seen on the host");
    ensure!(!dir.join("there").exists(), "not moved on the host");
    Ok(())
}

fn volume(docker: &Dockerd) -> Result<()> {
    let name = run::unique("sentrybox-volume");
    docker.ok(&["volume", "create", &name])?;
    let flag = format!("-v={name}:/v");
    let outcome = (|| {
        let one = docker.background(&[&flag], FOREVER)?;
        let two = docker.background(&[&flag], FOREVER)?;
        // Looked for first: a name that was missing must not stay so.
        one.sh("ls /v/a /v/b; echo from one > /v/a")?;
        let seen = two.sh("cat /v/a; echo from two > /v/b")?;
        ensure!(seen == "from one", "two sees {seen:?}");
        let seen = one.sh("cat /v/b")?;
        ensure!(seen == "from two", "one sees {seen:?}");
        let place = docker.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", &name])?;
        std::fs::write(format!("{place}/c"), "from the host\n")?;
        let seen = one.sh("cat /v/c")?;
        ensure!(seen == "from the host", "one sees {seen:?}");
        Ok(())
    })();
    docker.ok(&["volume", "rm", "-f", &name])?;
    outcome
}

fn single_file(docker: &Dockerd) -> Result<()> {
    let file = docker.scratch.0.join("single");
    std::fs::write(&file, "one\n")?;
    let flag = format!("-v={}:/etc/single", file.display());
    let container = docker.background(&[&flag], FOREVER)?;
    container.sh("echo two >> /etc/single")?;
    ensure!(std::fs::read_to_string(&file)? == "one\ntwo\n", "not seen on the host");
    std::fs::write(&file, "three\n")?;
    run::until("the file's new text is seen", LIMIT, || {
        container.sh("cat /etc/single").ok().filter(|t| t == "three")
    })
    .map(drop)
}

fn export(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], "echo exported > /mark; echo done; sleep 1000")?;
    container.wrote("done")?;
    let tar = docker.scratch.0.join("export.tar");
    docker.ok(&["export", "-o", &tar.display().to_string(), &container.id])?;
    let mut list = std::process::Command::new("tar");
    let out = run::output(list.arg("-xOf").arg(&tar).arg("mark"), LIMIT)?;
    std::fs::remove_file(&tar)?;
    ensure!(out.stdout == "exported\n", "{out:?}");
    Ok(())
}
