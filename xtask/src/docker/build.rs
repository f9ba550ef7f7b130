//! Images that are built, and services that are composed, with runsc as the default runtime.

use super::Case;
use super::daemon::{Dockerd, IMAGE, LIMIT};
use crate::run;
use anyhow::{Result, ensure};
use std::process::Command;

/// The cases.
pub(super) const CASES: &[Case] = &[("docker build", build), ("docker-compose", compose)];

fn build(docker: &Dockerd) -> Result<()> {
    let dir = docker.scratch.0.join("build");
    std::fs::create_dir(&dir)?;
    std::fs::write(
        dir.join("hello.c"),
        "#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n",
    )?;
    let file = format!(
        "FROM {IMAGE}\nWORKDIR /src\nCOPY hello.c .\nRUN gcc -O1 -o /usr/local/bin/hello hello.c && useradd -m someone\n\
         USER someone\nRUN id -un > /home/someone/who\nCMD [\"sh\", \"-c\", \"hello; cat /home/someone/who; id -un\"]\n"
    );
    std::fs::write(dir.join("Dockerfile"), file)?;
    docker.ok(&["build", "-q", "--network=none", "-t", "sentrybox-built", &dir.display().to_string()])?;
    let got = docker.ok(&["run", "--rm", "--network=none", "sentrybox-built"]);
    docker.ok(&["rmi", "-f", "sentrybox-built"])?;
    let got = got?;
    ensure!(got == "built\nsomeone\nsomeone", "{got:?}");
    Ok(())
}

const COMPOSE: &str = "
version: '2.4'
services:
  writer:
    image: IMAGE
    network_mode: none
    command: sh -c 'echo shared > /data/new && mv /data/new /data/file && sleep 1000'
    volumes: ['data:/data']
  reader:
    image: IMAGE
    network_mode: none
    command: sh -c 'until cat /data/file; do sleep 0.1; done; sleep 1000'
    volumes: ['data:/data:ro']
volumes:
  data: {}
";

fn compose(docker: &Dockerd) -> Result<()> {
    let dir = docker.scratch.0.join("compose");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("docker-compose.yml"), COMPOSE.replace("IMAGE", IMAGE))?;
    let project = run::unique("sentrybox");
    let compose = |args: &[&str]| {
        let mut command = Command::new("docker-compose");
        command
            .args(["-p", &project, "--ansi", "never"])
            .args(args)
            .current_dir(&dir)
            .env("DOCKER_HOST", &docker.socket);
        run::output(&mut command, LIMIT)
    };
    let outcome = (|| {
        let up = compose(&["up", "-d"])?;
        ensure!(up.code == 0, "up: {}", up.stderr.trim());
        run::until("the reader reads what the writer wrote", LIMIT, || {
            compose(&["logs", "reader"]).ok().filter(|out| out.stdout.contains("shared"))
        })?;
        let out = compose(&["exec", "-T", "writer", "cat", "/data/file"])?;
        ensure!(out.stdout == "shared\n", "exec: {out:?}");
        Ok(())
    })();
    let down = compose(&["down", "-v", "-t", "1"])?;
    outcome?;
    ensure!(down.code == 0, "down: {}", down.stderr.trim());
    Ok(())
}
