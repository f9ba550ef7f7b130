//! `root`, `mounts` and `linux.devices`.

use super::process::refused;
use super::subject::Subject;
use super::{Case, Inside};
use crate::bundle::Scratch;
use crate::run;
use anyhow::{Result, ensure};
use serde_json::json;
use std::process::Command;

const fn inside(name: &'static str, patch: &'static str, script: &'static str, want: &'static str) -> Inside {
    Inside { name, patch, script, want }
}

/// A case of a mount option that shows in /proc/self/mounts.
macro_rules! option {
    ($option:literal, $script:literal, $want:literal) => {
        Inside {
            name: concat!("mounts.options: ", $option),
            patch: concat!(
                r#"{"mounts+":[{"destination":"/tmp/m","type":"tmpfs","source":"tmpfs","options":[""#,
                $option,
                r#""]}]}"#
            ),
            script: $script,
            want: $want,
        }
    };
}

macro_rules! device {
    ($path:literal, $numbers:literal) => {
        Inside {
            name: concat!("devices: ", $path, " is there"),
            patch: "{}",
            script: concat!("stat -c '%F %t:%T %a' ", $path),
            want: concat!("character special file ", $numbers, " 666"),
        }
    };
}

macro_rules! link {
    ($path:literal, $target:literal) => {
        Inside {
            name: concat!("devices: ", $path, " is a link"),
            patch: "{}",
            script: concat!("readlink ", $path),
            want: $target,
        }
    };
}

const FLAGS: &str = "grep ' /tmp/m ' /proc/self/mounts | cut -d' ' -f4 | tr , '\\n' | grep -x -e ";

pub(super) const INSIDE: &[Inside] = &[
    inside(
        "root.readonly",
        "{}",
        "touch /x 2>/dev/null || echo refused; touch /etc/passwd 2>/dev/null || echo refused",
        "refused\nrefused",
    ),
    inside("root.readonly: mounts are not", "{}", "touch /tmp/x && echo made", "made"),
    option!("ro", "touch /tmp/m/x 2>/dev/null || echo refused", "refused"),
    option!("rw", "touch /tmp/m/x && echo made", "made"),
    option!("nosuid", "grep -c ' /tmp/m .*nosuid' /proc/self/mounts", "1"),
    option!("nodev", "grep -c ' /tmp/m .*nodev' /proc/self/mounts", "1"),
    option!("noexec", "cp /bin/true /tmp/m/x; /tmp/m/x 2>/dev/null || echo refused", "refused"),
    option!("exec", "cp /bin/true /tmp/m/x; /tmp/m/x && echo runs", "runs"),
    option!("noatime", "grep -c ' /tmp/m .*noatime' /proc/self/mounts", "1"),
    option!("nodiratime", "grep -c ' /tmp/m .*nodiratime' /proc/self/mounts", "1"),
    option!("relatime", "grep -c ' /tmp/m .*relatime' /proc/self/mounts", "1"),
    option!("strictatime", "grep -c ' /tmp/m .*relatime' /proc/self/mounts || true", "0"),
    option!("mode=0711", "stat -c %a /tmp/m", "711"),
    option!("uid=12", "stat -c %u /tmp/m", "12"),
    option!("gid=13", "stat -c %g /tmp/m", "13"),
    option!("size=1m", "head -c 2000000 /dev/zero 2>/dev/null > /tmp/m/x; stat -c %s /tmp/m/x", "1048576"),
    option!(
        "nr_inodes=5",
        "cd /tmp/m; for i in 1 2 3 4 5 6 7; do touch $i 2>/dev/null; done; ls | wc -l",
        "4"
    ),
    inside(
        "mounts: an option that comes later wins",
        r#"{"mounts+":[{"destination":"/tmp/m","type":"tmpfs","source":"tmpfs","options":["ro","rw"]}]}"#,
        "touch /tmp/m/x && echo made",
        "made",
    ),
    inside(
        "mounts: in their order, one over another",
        r#"{"mounts+":[{"destination":"/tmp/m","type":"tmpfs","source":"tmpfs"},{"destination":"/tmp/m/n","type":"tmpfs","source":"tmpfs","options":["mode=700"]}]}"#,
        "grep -c ' /tmp/m' /proc/self/mounts; stat -c %a /tmp/m/n",
        "2\n700",
    ),
    inside(
        "mounts: the destination is made",
        r#"{"mounts+":[{"destination":"/tmp/a/b/c","type":"tmpfs","source":"tmpfs"}]}"#,
        "test -d /tmp/a/b/c && echo there",
        "there",
    ),
    inside(
        "mounts: the destination lies in the root, whatever it climbs",
        r#"{"mounts+":[{"destination":"/tmp/../../../tmp/m","type":"tmpfs","source":"tmpfs"}]}"#,
        "test -d /tmp/m && echo there",
        "there",
    ),
    inside("mounts: proc", "{}", "stat -f -c %T /proc; test -e /proc/1/status && echo there", "proc\nthere"),
    inside(
        "mounts: devpts",
        "{}",
        "stat -f -c %T /dev/pts; test -c /dev/pts/ptmx && echo there",
        "devpts\nthere",
    ),
    inside("mounts: the shared memory", "{}", "stat -f -c %T /dev/shm; stat -c %a /dev/shm", "tmpfs\n1777"),
    inside(
        "mounts: mqueue",
        "{}",
        "cd /dev/mqueue && stat -c %a . && stat -f -c %T . && : > q && ls && cut -d' ' -f1 q && stat -c %s q && rm q && ls | wc -l",
        "1777\nmqueue\nq\nQSIZE:0\n80\n0",
    ),
    inside(
        "mounts: sysfs",
        r#"{"mounts+":[{"destination":"/sys","type":"sysfs","source":"sysfs","options":["ro","nosuid","noexec","nodev"]}]}"#,
        "stat -f -c %T /sys; mkdir /sys/x 2>/dev/null || echo refused",
        "sysfs\nrefused",
    ),
    inside(
        "mounts: a bind mount of a directory",
        r#"{"mounts+":[{"destination":"/mnt","type":"bind","source":"/usr/share/common-licenses","options":["rbind","ro"]}]}"#,
        "test -e /mnt/GPL-2 && echo there; touch /mnt/x 2>/dev/null || echo refused",
        "there\nrefused",
    ),
    inside(
        "mounts: a bind mount of a file",
        r#"{"mounts+":[{"destination":"/tmp/f","type":"bind","source":"/etc/hostname","options":["bind","ro"]}]}"#,
        "test -f /tmp/f && echo there; echo x 2>/dev/null > /tmp/f || echo refused",
        "there\nrefused",
    ),
    inside(
        "mounts: a bind mount by its option, without a type",
        r#"{"mounts+":[{"destination":"/mnt","source":"/usr/share/common-licenses","options":["bind","ro"]}]}"#,
        "test -e /mnt/GPL-2 && echo there",
        "there",
    ),
    inside(
        "mounts: a relative source lies in the bundle",
        r#"{"mounts+":[{"destination":"/mnt","type":"bind","source":".","options":["bind","ro"]}]}"#,
        "ls /mnt",
        "config.json",
    ),
    inside(
        "mounts: a bind mount with nosuid, nodev and noexec",
        r#"{"mounts+":[{"destination":"/mnt","type":"bind","source":"/usr/bin","options":["bind","ro","noexec"]}]}"#,
        "/mnt/true 2>/dev/null || echo refused",
        "refused",
    ),
    inside("mounts: none can be made on the host", "{}", "grep -c ' / ' /proc/self/mounts", "1"),
    device!("/dev/null", "1:3"),
    device!("/dev/zero", "1:5"),
    device!("/dev/full", "1:7"),
    device!("/dev/random", "1:8"),
    device!("/dev/urandom", "1:9"),
    device!("/dev/tty", "5:0"),
    link!("/dev/fd", "/proc/self/fd"),
    link!("/dev/stdin", "/proc/self/fd/0"),
    link!("/dev/stdout", "/proc/self/fd/1"),
    link!("/dev/stderr", "/proc/self/fd/2"),
    link!("/dev/ptmx", "pts/ptmx"),
    inside(
        "devices: they work",
        "{}",
        "head -c 3 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x 2>/dev/null > /dev/full || echo full",
        "3\n4\nfull",
    ),
    inside(
        "linux.devices: a node with mode and owner",
        r#"{"linux":{"devices":[{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":384,"uid":3,"gid":4}]}}"#,
        "stat -c '%F %t:%T %a %u %g' /dev/x",
        "character special file 1:3 600 3 4",
    ),
    inside(
        "linux.devices: a FIFO",
        r#"{"linux":{"devices":[{"path":"/dev/f","type":"p","fileMode":438}]}}"#,
        "stat -c '%F %a' /dev/f",
        "fifo 666",
    ),
    inside(
        "linux.devices: a block device",
        r#"{"linux":{"devices":[{"path":"/dev/b","type":"b","major":7,"minor":200,"fileMode":384}]}}"#,
        "stat -c '%F %t:%T' /dev/b",
        "block special file 7:c8",
    ),
    inside(
        "linux.devices: in a folder that is made",
        r#"{"linux":{"devices":[{"path":"/dev/a/b","type":"c","major":1,"minor":5,"fileMode":438}]}}"#,
        "head -c 2 /dev/a/b | wc -c",
        "2",
    ),
];

pub(super) const CASES: &[Case] = &[
    ("root.path: a writable root is written to", writable_root),
    ("root.path: relative to the bundle", relative_root),
    ("root.path: a root that is not there is an error", |s| {
        refused(s, r#"{"root":{"path":"/no/such/root"}}"#)
    }),
    ("root: none is an error", |s| refused(s, r#"{"root":null}"#)),
    ("mounts: a bind mount is written to", bind_is_written),
    ("mounts: rbind has what is mounted below, bind has not", |s| recursion(s)),
    ("mounts: a source that is not there is an error", |s| {
        refused(
            s,
            r#"{"mounts+":[{"destination":"/mnt","type":"bind","source":"/no/such/source","options":["bind"]}]}"#,
        )
    }),
    ("mounts: a type that is not there is an error", |s| {
        refused(s, r#"{"mounts+":[{"destination":"/mnt","type":"nosuchfs","source":"x"}]}"#)
    }),
    ("mounts: links of the root do not lead out of it", links_stay_inside),
    ("mounts: flags of a tmpfs", mount_flags),
    ("mounts: an overlay of the host's directories", overlay),
    ("config.json: none is an error", no_config),
    ("config.json: no JSON is an error", bad_config),
];

/// A writable root of its own, over the Debian root; unmounted with the value.
struct Root(Scratch);

impl Root {
    fn new(subject: &Subject) -> Result<Self> {
        let scratch = Scratch::new()?;
        let dir = scratch.0.display();
        let script = format!(
            "mount -t tmpfs tmpfs {dir} && mkdir {dir}/up {dir}/work {dir}/rootfs && \
             mount -t overlay overlay -o lowerdir={},upperdir={dir}/up,workdir={dir}/work {dir}/rootfs",
            subject.root.display()
        );
        run::check(Command::new("sh").args(["-c", &script]))?;
        Ok(Self(scratch))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let dir = self.0.0.display();
        drop(run::check(Command::new("sh").args(["-c", &format!("umount {dir}/rootfs; umount {dir}")])));
    }
}

fn overlay(subject: &Subject) -> Result<()> {
    let root = Root::new(subject)?;
    let dir = &root.0.0;
    for name in ["low", "top", "work2"] {
        std::fs::create_dir(dir.join(name))?;
    }
    std::fs::write(dir.join("low/a"), "from below\n")?;
    let patch = |lower: &str| {
        let layer = |name: &str| dir.join(name).display().to_string();
        let options = [
            format!("lowerdir={}", layer(lower)),
            format!("upperdir={}", layer("top")),
            format!("workdir={}", layer("work2")),
            "nosuid".to_owned(),
        ];
        let mount =
            json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": options});
        json!({"mounts+": [mount]}).to_string()
    };
    let script =
        "cat /mnt/a && echo more >> /mnt/a && echo b > /mnt/b && grep -c ' /mnt .*nosuid' /proc/mounts";
    let out = subject.run_script(&patch("low"), script)?;
    ensure!(out.code == 0 && out.stdout == "from below\n1\n", "{out:?}");
    ensure!(
        std::fs::read_to_string(dir.join("top/a"))? == "from below\nmore\n",
        "the upper layer lacks the change"
    );
    ensure!(std::fs::read_to_string(dir.join("low/a"))? == "from below\n", "the lower layer has the change");
    ensure!(dir.join("top/b").exists(), "the upper layer lacks the new file");
    refused(subject, &patch("missing"))
}

fn writable_root(subject: &Subject) -> Result<()> {
    let root = Root::new(subject)?;
    let rootfs = root.0.0.join("rootfs");
    let script = "echo text > /made; mkdir /dir; ln -s made /dir/link; mv /etc/hostname /etc/moved; rm /etc/fstab; chmod 741 /made; cat /made";
    let bundle = subject.bundle_of(&rootfs, r#"{"root":{"readonly":false}}"#, &["sh", "-c", script])?;
    let out = subject.run(&bundle)?;
    ensure!(out.code == 0 && out.stdout == "text\n", "{out:?}");
    ensure!(
        std::fs::read_to_string(rootfs.join("made"))? == "text\n",
        "the file has another text on the host"
    );
    ensure!(std::fs::read_link(rootfs.join("dir/link"))?.as_os_str() == "made", "the link leads elsewhere");
    ensure!(
        rootfs.join("etc/moved").exists() && !rootfs.join("etc/hostname").exists(),
        "the file was not moved"
    );
    ensure!(!rootfs.join("etc/fstab").exists(), "the file was not removed");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(rootfs.join("made"))?);
    ensure!(mode & 0o7777 == 0o741, "the mode is {mode:o}");
    Ok(())
}

fn relative_root(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle(r#"{"root":{"path":"root"}}"#, "echo ran")?;
    let root = bundle.0.join("root");
    std::fs::create_dir(&root)?;
    run::check(Command::new("mount").arg("--bind").arg(&subject.root).arg(&root))?;
    let out = subject.run(&bundle);
    run::check(Command::new("umount").arg("-l").arg(&root))?;
    let out = out?;
    ensure!(out.stdout == "ran\n", "{out:?}");
    Ok(())
}

fn bind_is_written(subject: &Subject) -> Result<()> {
    let shared = Scratch::new()?;
    std::fs::write(shared.0.join("there"), "host\n")?;
    let patch = format!(
        r#"{{"mounts+":[{{"destination":"/mnt","type":"bind","source":"{}","options":["rbind","rw"]}}]}}"#,
        shared.0.display()
    );
    let out = subject.run_script(&patch, "cat /mnt/there; echo inside > /mnt/made; rm /mnt/there")?;
    ensure!(out.code == 0 && out.stdout == "host\n", "{out:?}");
    ensure!(std::fs::read_to_string(shared.0.join("made"))? == "inside\n", "not seen on the host");
    ensure!(!shared.0.join("there").exists(), "not removed on the host");
    Ok(())
}

fn recursion(subject: &Subject) -> Result<()> {
    let shared = Scratch::new()?;
    let below = shared.0.join("below");
    std::fs::create_dir(&below)?;
    run::check(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below))?;
    let outcome = (|| {
        std::fs::write(below.join("file"), "")?;
        for (option, want) in [("rbind", "file\n"), ("bind", "")] {
            let patch = format!(
                r#"{{"mounts+":[{{"destination":"/mnt","type":"bind","source":"{}","options":["{option}","ro"]}}]}}"#,
                shared.0.display()
            );
            let out = subject.run_script(&patch, "ls /mnt/below")?;
            ensure!(out.code == 0 && out.stdout == want, "{option}: {out:?}");
        }
        Ok(())
    })();
    run::check(Command::new("umount").arg(&below))?;
    outcome
}

fn links_stay_inside(subject: &Subject) -> Result<()> {
    let root = Root::new(subject)?;
    let rootfs = root.0.0.join("rootfs");
    let outside = Scratch::new()?;
    std::os::unix::fs::symlink(&outside.0, rootfs.join("out"))?;
    let patch = r#"{"root":{"readonly":false},"mounts+":[{"destination":"/out/made","type":"tmpfs","source":"tmpfs"}]}"#;
    let bundle = subject.bundle_of(&rootfs, patch, &["sh", "-c", "echo ran"])?;
    let out = subject.run(&bundle)?;
    ensure!(!outside.0.join("made").exists(), "a folder was made outside of the root");
    ensure!(out.code != 0 || out.stdout == "ran\n", "{out:?}");
    Ok(())
}

fn mount_flags(subject: &Subject) -> Result<()> {
    let patch = r#"{"mounts+":[{"destination":"/tmp/m","type":"tmpfs","source":"tmpfs","options":["nosuid","nodev","noexec","ro"]}]}"#;
    let script = format!("{FLAGS}nosuid -e nodev -e noexec -e ro | sort | tr '\\n' ' '");
    let out = subject.run_script(patch, &script)?;
    ensure!(out.stdout == "nodev noexec nosuid ro ", "{out:?}");
    Ok(())
}

fn no_config(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "true")?;
    std::fs::remove_file(bundle.0.join("config.json"))?;
    subject.fails(&["run", "--bundle", &bundle.0.display().to_string(), "none"]).map(drop)
}

fn bad_config(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "true")?;
    for text in ["", "{", "[]", "{\"ociVersion\": 1}"] {
        std::fs::write(bundle.0.join("config.json"), text)?;
        subject.fails(&["run", "--bundle", &bundle.0.display().to_string(), "bad"])?;
    }
    Ok(())
}
