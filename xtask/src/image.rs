//! A small image of our own: one static program, in the form that `docker save` writes.

use crate::bundle::Scratch;
use crate::{apt, run};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What containers are made of.
pub(crate) const BOX: &str = "docker.io/sentrybox/box:1";
/// What the first container of a pod is made of.
pub(crate) const PAUSE: &str = "docker.io/sentrybox/pause:1";

/// Programs of the image, by the names that tests use.
const PROGRAMS: [&str; 24] = [
    "sh", "echo", "cat", "env", "pwd", "sleep", "true", "false", "ls", "id", "hostname", "stty", "tty",
    "touch", "kill", "ps", "wc", "grep", "seq", "rm", "mkdir", "test", "head", "dd",
];

fn tar(args: &[&str], dir: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(dir)
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg("-cf")
        .arg(file)
        .args(args);
    let out = run::output(&mut command, LIMIT)?;
    ensure!(out.code == 0, "tar: {}", out.stderr.trim());
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let out = run::output(Command::new("sha256sum").arg(file), LIMIT)?;
    Ok(out.stdout.split_whitespace().next().context("sha256sum")?.to_owned())
}

/// Writes an archive with both images; its path in the folder.
///
/// # Errors
/// When a program for that is missing.
pub(crate) fn archive(scratch: &Scratch) -> Result<PathBuf> {
    apt::ensure(&["busybox-static"])?;
    let root = scratch.0.join("root");
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "var"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox")?;
    for name in PROGRAMS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    tar(&["."], &root, &scratch.0.join("layer.tar"))?;
    let layer = format!("sha256:{}", sha256(&scratch.0.join("layer.tar"))?);
    let mut manifest = Vec::new();
    for (name, command) in [(BOX, vec!["/bin/sh"]), (PAUSE, vec!["/bin/sleep", "1000000"])] {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin", "FROM=image"], "Cmd": command, "WorkingDir": "/tmp"},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": "2026-01-01T00:00:00Z"}],
        });
        let file = format!("{}.json", name.rsplit(['/', ':']).nth(1).unwrap_or_default());
        std::fs::write(scratch.0.join(&file), config.to_string())?;
        manifest.push(json!({"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]}));
    }
    std::fs::write(scratch.0.join("manifest.json"), json!(manifest).to_string())?;
    let archive = scratch.0.join("images.tar");
    tar(&["manifest.json", "box.json", "pause.json", "layer.tar"], &scratch.0, &archive)?;
    Ok(archive)
}
