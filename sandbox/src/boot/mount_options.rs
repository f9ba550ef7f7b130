//! Mount options as mount(8) and the OCI specification spell them.
use abi::fs::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME, MS_STRICTATIME,
};

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// `MS_*`.
    pub(super) flags: u32,
    /// The file system's own, joined by commas.
    pub(super) data: String,
}

/// Options that set or clear flags.
const FLAGS: &[(&str, bool, u32)] = &[
    ("ro", true, MS_RDONLY),
    ("rw", false, MS_RDONLY),
    ("nosuid", true, MS_NOSUID),
    ("suid", false, MS_NOSUID),
    ("nodev", true, MS_NODEV),
    ("dev", false, MS_NODEV),
    ("noexec", true, MS_NOEXEC),
    ("exec", false, MS_NOEXEC),
    ("noatime", true, MS_NOATIME),
    ("atime", false, MS_NOATIME),
    ("nodiratime", true, MS_NODIRATIME),
    ("diratime", false, MS_NODIRATIME),
    ("relatime", true, MS_RELATIME),
    ("norelatime", false, MS_RELATIME),
    ("strictatime", true, MS_STRICTATIME),
    ("nostrictatime", false, MS_STRICTATIME),
];

/// Options that say nothing here: every mount is private, and what is bound is decided by the gofer.
const IGNORED: &[&str] = &[
    "defaults",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
    "async",
    "sync",
    "dirsync",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "rro",
    "rnosuid",
    "rnodev",
    "rnoexec",
    "tmpcopyup",
    "idmap",
    "ridmap",
];

/// The options that are for the file system itself, joined by commas.
#[must_use]
pub fn file_system_options(options: &[String]) -> String {
    parse(options).data
}

/// Reads options.
pub(super) fn parse(options: &[String]) -> MountOptions {
    let mut parsed = MountOptions::default();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        if let Some((_, set, flag)) = FLAGS.iter().find(|(name, ..)| name == option) {
            parsed.flags = if *set { parsed.flags | flag } else { parsed.flags & !flag };
        } else if !IGNORED.contains(&option.as_str()) {
            data.push(option);
        }
    }
    parsed.data = data.join(",");
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_flags_from_data() {
        let options = ["nosuid", "ro", "rw", "rbind", "mode=755", "size=64k"].map(str::to_owned);
        let parsed = parse(&options);
        assert_eq!(parsed, MountOptions { flags: MS_NOSUID, data: "mode=755,size=64k".to_owned() });
    }
}
