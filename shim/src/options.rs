//! What the caller may choose: which program, where it keeps its state, and its flags.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use containerd_shim::api;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{CodedInputStream, Message};
use serde::{Deserialize, Serialize};

/// The file in the bundle that keeps them for when this process is gone.
const FILE: &str = "runsc-options.json";
/// Where state is kept, below a folder for each namespace of containerd.
const ROOT: &str = "/run/containerd/runsc";
/// The type of options that name a file, and those of containerd's own runtime.
const BY_FILE: [&str; 2] = ["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"];
const OF_RUNC: &str = "containerd.runc.v1.Options";

/// What the caller may choose; the names are those of the file that `ConfigPath` shows, which is TOML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    /// The program.
    pub(crate) binary_name: String,
    /// Where its state is kept.
    pub(crate) root: String,
    /// Its flags, without the dashes.
    pub(crate) runsc_config: BTreeMap<String, String>,
}

impl Options {
    /// The options that come with a request.
    ///
    /// # Errors
    /// When they are of an unknown kind, or a file cannot be read.
    pub(crate) fn new(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Self::default()) };
        let kind = any.type_url.rsplit('/').next().unwrap_or_default();
        if kind == OF_RUNC {
            let theirs = api::Options::parse_from_bytes(&any.value).context("options")?;
            let cgroup = theirs.systemd_cgroup.then(|| ("systemd-cgroup".to_owned(), "true".to_owned()));
            return Ok(Self {
                binary_name: theirs.binary_name,
                root: theirs.root,
                runsc_config: cgroup.into_iter().collect(),
            });
        }
        if !BY_FILE.contains(&kind) {
            bail!("options of the kind {:?}", any.type_url);
        }
        let (path, body) = by_file(&any.value)?;
        if !body.is_empty() {
            return toml::from_str(&body).context("options");
        }
        if path.is_empty() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("options: {path}"))?;
        toml::from_str(&text).with_context(|| format!("options: {path}"))
    }

    /// The program.
    pub(crate) fn binary(&self) -> &str {
        if self.binary_name.is_empty() { "runsc" } else { &self.binary_name }
    }

    /// Where the state of containers of a namespace is kept.
    pub(crate) fn state(&self, namespace: &str) -> PathBuf {
        Path::new(if self.root.is_empty() { ROOT } else { &self.root }).join(namespace)
    }

    /// Keeps them in the bundle.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn save(&self, bundle: &Path) -> Result<()> {
        std::fs::write(bundle.join(FILE), serde_json::to_vec(self)?).context("keep the options")
    }

    /// Those that the bundle keeps, or none.
    pub(crate) fn load(bundle: &Path) -> Self {
        let text = std::fs::read(bundle.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Path and text of a `runtimeoptions.v1.Options`: `{string type_url = 1; string config_path = 2; bytes config_body = 3}`.
fn by_file(message: &[u8]) -> Result<(String, String)> {
    let mut input = CodedInputStream::from_bytes(message);
    let (mut path, mut body) = (String::new(), String::new());
    while let Some(tag) = input.read_raw_tag_or_eof().context("options")? {
        match tag {
            0x0a => drop(input.read_string().context("options")?),
            0x12 => path = input.read_string().context("options")?,
            0x1a => body = String::from_utf8(input.read_bytes().context("options")?).context("options")?,
            other => bail!("options: field {other:#x} is unknown"),
        }
    }
    Ok((path, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(kind: &str, value: &[u8]) -> Any {
        Any { type_url: kind.to_owned(), value: value.to_vec(), ..Any::default() }
    }

    #[test]
    fn reads_each_kind() {
        assert_eq!(Options::new(None).expect("none"), Options::default());
        let toml = b"binary_name = \"/bin/x\"\nroot = \"/r\"\n[runsc_config]\nplatform = \"kvm\"\n";
        let mut message = vec![0x0a, 1, b't', 0x1a, u8::try_from(toml.len()).expect("short")];
        message.extend_from_slice(toml);
        let options = Options::new(Some(&any("runtimeoptions.v1.Options", &message))).expect("toml");
        assert_eq!((options.binary(), options.state("n").to_str()), ("/bin/x", Some("/r/n")));
        assert_eq!(options.runsc_config.get("platform").map(String::as_str), Some("kvm"));
        let theirs =
            api::Options { binary_name: "y".to_owned(), systemd_cgroup: true, ..api::Options::default() };
        let theirs = theirs.write_to_bytes().expect("encodes");
        let options = Options::new(Some(&any("x/containerd.runc.v1.Options", &theirs))).expect("runc's");
        assert_eq!((options.binary(), options.runsc_config.len()), ("y", 1));
        assert_eq!(options.state("k8s.io").to_str(), Some("/run/containerd/runsc/k8s.io"));
        assert!(Options::new(Some(&any("other", &[]))).is_err());
        assert!(Options::new(Some(&any("runtimeoptions.v1.Options", &[0x12, 200]))).is_err());
    }
}
