//! Terminals.

use super::Case;
use super::daemon::{Dockerd, IMAGE, LIMIT};
use crate::pty::Session;
use anyhow::{Result, ensure};

/// The cases.
pub(super) const CASES: &[Case] =
    &[("run -it", run_it), ("exec -it", exec_it), ("detach and attach", detach_and_attach)];

fn run_it(docker: &Dockerd) -> Result<()> {
    let command = docker.command(&["run", "--rm", "-it", "--network=none", IMAGE, "bash", "--norc"]);
    let mut session = Session::start(&command)?;
    session.expect("# ", LIMIT)?;
    // The client tells the size once the container runs.
    session.send("tty; until stty size | grep '24 200'; do sleep 0.1; done; echo $((6*7))\n")?;
    session.expect("/dev/pts/0", LIMIT)?;
    session.expect("\n24 200", LIMIT)?;
    session.expect("42", LIMIT)?;
    // Not before it runs: the shell would take the key. And what is typed before the prompt is back may be lost.
    session.send("sh -c 'echo go; exec sleep 1000'\n")?;
    session.expect("go\r", LIMIT)?;
    session.send("\u{3}")?;
    session.expect("^C", LIMIT)?;
    session.expect("# ", LIMIT)?;
    session.send("echo status $?; exit 9\n")?;
    session.expect("status 130", LIMIT)?;
    let code = session.finish(LIMIT)?;
    ensure!(code == 9, "exit status {code}");
    Ok(())
}

fn exec_it(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], "while :; do sleep 0.1; done")?;
    let command = docker.command(&["exec", "-it", &container.id, "sh"]);
    let mut session = Session::start(&command)?;
    session.expect("# ", LIMIT)?;
    session.send("tty; until stty size | grep '24 200'; do sleep 0.1; done; exit 6\n")?;
    session.expect("/dev/pts/", LIMIT)?;
    session.expect("\n24 200", LIMIT)?;
    let code = session.finish(LIMIT)?;
    ensure!(code == 6, "exit status {code}");
    Ok(())
}

fn detach_and_attach(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["-it"], "stty -echo; while read line; do echo got $line; done")?;
    let mut session = Session::start(&docker.command(&["attach", &container.id]))?;
    session.send("one\n")?;
    session.expect("got one", LIMIT)?;
    // The keys that detach.
    session.send("\u{10}\u{11}")?;
    session.finish(LIMIT)?;
    let status = container.inspect(".State.Status")?;
    ensure!(status == "running", "after detaching it is {status}");
    let mut session = Session::start(&docker.command(&["attach", &container.id]))?;
    session.send("two\n")?;
    session.expect("got two", LIMIT)?;
    // The end of input ends the loop, and the container.
    session.send("\u{4}")?;
    let code = session.finish(LIMIT)?;
    ensure!(code == 0, "exit status {code}");
    Ok(())
}
