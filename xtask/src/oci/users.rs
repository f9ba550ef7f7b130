//! `linux.uidMappings` and `gidMappings`: user namespaces, and mounts whose owners are mapped.

use super::process::refused;
use super::subject::{Made, Subject};
use super::{Case, Inside};
use crate::bundle::Scratch;
use anyhow::{Result, ensure};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// The first of the container's ids on the host.
const BASE: u32 = 100_000;

/// A user namespace of 1000 ids; what is mapped, in front of what else is to change.
macro_rules! mapped {
    ($($more:literal)*) => {
        concat!(
            r#"{"linux":{"namespaces+":[{"type":"user"}],"#,
            r#""uidMappings":[{"containerID":0,"hostID":100000,"size":1000}],"#,
            r#""gidMappings":[{"containerID":0,"hostID":100000,"size":900},{"containerID":2000,"hostID":300000,"size":1}]}"#,
            $($more,)*
            "}"
        )
    };
}

/// The folder of the bundle at /tmp of the container.
macro_rules! shared {
    ($options:literal) => {
        mapped!(r#","mounts+":[{"destination":"/tmp","type":"bind","source":"BUNDLE","options":["# $options "]}]")
    };
}

const fn inside(name: &'static str, script: &'static str, want: &'static str) -> Inside {
    Inside { name, patch: mapped!(), script, want }
}

pub(super) const INSIDE: &[Inside] = &[
    inside(
        "users: /proc shows who there is",
        "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map",
        " 0 100000 1000\n 0 100000 900\n 2000 300000 1",
    ),
    Inside {
        name: "users: mappings without a namespace are left out",
        patch: r#"{"linux":{"uidMappings":[{"containerID":0,"hostID":100000,"size":1000}],"gidMappings":[{"containerID":0,"hostID":100000,"size":1000}]}}"#,
        script: "tr -s ' ' < /proc/self/uid_map; stat -c %u /etc/passwd",
        want: " 0 0 4294967295\n0",
    },
    inside(
        "users: who does not exist owns as nobody",
        "stat -c %u:%g /etc/passwd / /usr/bin/id",
        "65534:65534\n65534:65534\n65534:65534",
    ),
    inside(
        "users: files of nobody are not root's",
        "cat /etc/shadow 2>&1 | grep -o denied; head -n 1 /etc/passwd | cut -d: -f1",
        "denied\nroot",
    ),
    inside(
        "users: an owner who does not exist cannot be given",
        "touch /tmp/f; chown 1000 /tmp/f 2>&1 | grep -o Invalid.*; chgrp 1999 /tmp/f 2>&1 | grep -o Invalid.*; chown 999:2000 /tmp/f && stat -c %u:%g /tmp/f",
        "Invalid argument\nInvalid argument\n999:2000",
    ),
    inside(
        "users: ids that do not exist cannot be taken",
        "python3 -c 'import os\nfor f, i in (os.setuid, 1000), (os.setgid, 901), (lambda i: os.setgroups([i]), 1999), (lambda i: os.setresuid(-1, i, -1), 5000):\n  try: f(i); print(\"taken\")\n  except OSError as e: print(e.strerror)\nos.setgroups([2000, 5]); os.setgid(899); os.setuid(999); print(os.getgroups(), os.getgid(), os.getuid())'",
        "Invalid argument\nInvalid argument\nInvalid argument\nInvalid argument\n[5, 2000] 899 999",
    ),
];

pub(super) const CASES: &[Case] = &[
    ("users: files that are made have the owners that the mapping says", made_files),
    ("users: files of the host have the owners that the mapping says", host_files),
    ("users: exec by a user", exec_user),
    ("users: a process of a user who does not exist is an error", |s| {
        refused(s, mapped!(r#","process":{"user":{"uid":1000,"gid":0}}"#))
    }),
    ("users: a process of a group that does not exist is an error", |s| {
        refused(s, mapped!(r#","process":{"user":{"uid":0,"gid":1000}}"#))
    }),
    ("users: a namespace without mappings is an error", |s| {
        refused(s, r#"{"linux":{"namespaces+":[{"type":"user"}]}}"#)
    }),
    ("users: mappings that overlap are an error", |s| {
        refused(
            s,
            r#"{"linux":{"namespaces+":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":100000,"size":1000},{"containerID":999,"hostID":200000,"size":1}],"gidMappings":[{"containerID":0,"hostID":100000,"size":1000}]}}"#,
        )
    }),
    ("ours: mounts: idmap shows owners as the container's", mapped_mount),
    ("ours: mounts: idmap with mappings of its own", own_mapping),
    ("ours: mounts: idmap without mappings is an error", |s| {
        refused(
            s,
            r#"{"mounts+":[{"destination":"/tmp","type":"bind","source":"BUNDLE","options":["bind","idmap"]}]}"#,
        )
    }),
];

/// Checks who owns a file of the host.
fn owned_by(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    let owner = (meta.uid(), meta.gid());
    ensure!(owner == (uid, gid), "{} is owned by {owner:?}, not {uid}:{gid}", path.display());
    Ok(())
}

/// A bundle whose folder is the container's root's.
fn own_bundle(subject: &Subject, patch: &str, script: &str) -> Result<Scratch> {
    let bundle = subject.bundle(patch, script)?;
    chown(&bundle.0, Some(BASE), Some(BASE))?;
    Ok(bundle)
}

fn started(subject: &Subject, bundle: Scratch) -> Result<Made<'_>> {
    let made = subject.create(bundle, &[])?;
    subject.ok(&["start", &made.id])?;
    Ok(made)
}

fn made_files(subject: &Subject) -> Result<()> {
    let script = "cd /tmp && touch plain && mkdir dir && ln -s x link && mkfifo fifo && touch given && chown 7:2000 given && \
                  chown -h 8:9 link && chmod 4755 plain && stat -c %u:%g plain dir link fifo given && echo done";
    let bundle = own_bundle(subject, shared!(r#""rbind","rw""#), script)?;
    let out = subject.run(&bundle)?;
    ensure!(out.stdout == "0:0\n0:0\n8:9\n0:0\n7:2000\ndone\n", "inside: {:?} {:?}", out.stdout, out.stderr);
    for name in ["plain", "dir", "fifo"] {
        owned_by(&bundle.0.join(name), BASE, BASE)?;
    }
    owned_by(&bundle.0.join("link"), BASE + 8, BASE + 9)?;
    owned_by(&bundle.0.join("given"), BASE + 7, 300_000)
}

fn host_files(subject: &Subject) -> Result<()> {
    let script = "cd /tmp && stat -c %u:%g his roots && echo more >> his && cat his && ! echo x 2>/dev/null >> roots && \
                  ! chmod 777 roots 2>/dev/null && ! chown 0 roots 2>/dev/null && ! rm -f closed/roots 2>/dev/null && echo refused";
    let bundle = own_bundle(subject, shared!(r#""rbind","rw""#), script)?;
    for (name, owner) in [("his", BASE + 12), ("roots", 0)] {
        std::fs::write(bundle.0.join(name), "text\n")?;
        chown(bundle.0.join(name), Some(owner), Some(owner))?;
    }
    std::fs::create_dir(bundle.0.join("closed"))?;
    std::fs::write(bundle.0.join("closed/roots"), "")?;
    let out = subject.run(&bundle)?;
    ensure!(out.stdout == "12:12\n65534:65534\ntext\nmore\nrefused\n", "{:?} {:?}", out.stdout, out.stderr);
    owned_by(&bundle.0.join("roots"), 0, 0)
}

fn exec_user(subject: &Subject) -> Result<()> {
    let made = started(subject, own_bundle(subject, shared!(r#""rbind","rw""#), "sleep 1000")?)?;
    std::fs::create_dir(made.bundle.0.join("open"))?;
    chown(made.bundle.0.join("open"), Some(BASE + 5), Some(BASE + 6))?;
    let script = "touch /tmp/open/file; id -u; id -g";
    let out = subject.ok(&["exec", "--user", "5:6", &made.id, "sh", "-c", script])?;
    ensure!(out == "5\n6", "{out:?}");
    owned_by(&made.bundle.0.join("open/file"), BASE + 5, BASE + 6)?;
    subject.fails(&["exec", "--user", "1000:6", &made.id, "true"]).map(drop)
}

fn mapped_mount(subject: &Subject) -> Result<()> {
    let script =
        "cd /tmp && stat -c %u:%g roots && touch made && chown 3:4 roots && stat -c %u:%g roots made";
    let bundle = subject.bundle(shared!(r#""rbind","idmap""#), script)?;
    std::fs::write(bundle.0.join("roots"), "")?;
    let out = subject.run(&bundle)?;
    ensure!(out.stdout == "0:0\n3:4\n0:0\n", "inside: {:?} {:?}", out.stdout, out.stderr);
    owned_by(&bundle.0.join("roots"), 3, 4)?;
    owned_by(&bundle.0.join("made"), 0, 0)
}

fn own_mapping(subject: &Subject) -> Result<()> {
    let script = "cd /tmp && stat -c %u:%g his others && touch made && chown 500:600 made";
    let bundle = subject.bundle(
        r#"{"mounts+":[{"destination":"/tmp","type":"bind","source":"BUNDLE","options":["rbind","rw"],
            "uidMappings":[{"containerID":70000,"hostID":500,"size":2},{"containerID":0,"hostID":0,"size":1}],
            "gidMappings":[{"containerID":80000,"hostID":600,"size":2},{"containerID":0,"hostID":0,"size":1}]}]}"#,
        script,
    )?;
    for (name, uid, gid) in [("his", 70_001, 80_001), ("others", 1234, 1234)] {
        std::fs::write(bundle.0.join(name), "")?;
        chown(bundle.0.join(name), Some(uid), Some(gid))?;
    }
    let out = subject.run(&bundle)?;
    ensure!(out.stdout == "501:601\n65534:65534\n", "inside: {:?} {:?}", out.stdout, out.stderr);
    owned_by(&bundle.0.join("made"), 70_000, 80_000)
}
