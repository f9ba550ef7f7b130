//! The OCI runtime configuration (config.json). A field of the wrong type is an error that names its line; what is accepted
//! without effect is said by [`Spec::ignored`], and by docs/oci.md.
mod hooks;
mod ignored;
mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use hooks::{Hook, Hooks};
pub use linux::{Device, IdMapping, IdMappings, Linux, Namespace};
pub use process::{CAPABILITIES, Capabilities, ConsoleSize, Process, Rlimit, User};
pub use resources::{BlockIo, Cpu, HugepageLimit, Memory, Pids, Resources, Throttle, WeightDevice};
pub use seccomp::{Seccomp, SeccompArg, SeccompRule};

/// The version of the OCI runtime specification that the runtime reports.
pub const OCI_VERSION: &str = "1.2.0";
/// The largest config.json that is read.
const MAX_CONFIG: u64 = 16 << 20;

/// Why a bundle cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A file of it cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: std::io::Error,
    },
    /// The text is no configuration.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A value has no meaning.
    #[error("config.json: {0}")]
    Value(&'static str),
    /// A value has no meaning, and this is it.
    #[error("config.json: {what}: {value:?}")]
    BadValue {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: String,
    },
}

/// The root of the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Root {
    /// Where it lies on the host, relative to the bundle.
    pub path: PathBuf,
    /// Whether the container may not write to it.
    #[serde(default)]
    pub readonly: bool,
}

/// A mount of the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, in the container.
    pub destination: PathBuf,
    /// The file system's type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is mounted; a path of the host for bind mounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Options as mount(8) knows them.
    #[serde(default, deserialize_with = "linux::null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// How the owners of its files are shown.
    #[serde(default, deserialize_with = "linux::null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// How their groups are shown.
    #[serde(default, deserialize_with = "linux::null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// Whether it shows a file or folder of the host.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.kind.as_deref() == Some("bind") || self.options.iter().any(|o| o == "bind" || o == "rbind")
    }

    /// Whether it shows directories of the host as layers of one.
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        self.kind.as_deref() == Some("overlay") && !self.is_bind()
    }

    /// Whether the option is given.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// The configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification it follows.
    pub oci_version: String,
    /// The first process.
    pub process: Option<Process>,
    /// The root.
    pub root: Option<Root>,
    /// `uname -n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The NIS domain name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in their order.
    #[serde(default, deserialize_with = "linux::null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs of the host that run as the container's life goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Notes of the caller.
    #[serde(
        default,
        deserialize_with = "linux::null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// Reads the configuration of a bundle and checks it; the path of the root becomes absolute.
    ///
    /// # Errors
    /// [`SpecError`], when the bundle cannot be run.
    pub fn load(bundle: &Path) -> Result<Self, SpecError> {
        let path = bundle.join("config.json");
        let text = read_regular(&path).map_err(|source| SpecError::Read { path: path.clone(), source })?;
        let mut spec: Self =
            serde_json::from_slice(&text).map_err(|source| SpecError::Parse { path, source })?;
        let root = spec.root.as_mut().ok_or(SpecError::Value("there is no root"))?;
        root.path = bundle.join(&root.path);
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        if !self.oci_version.starts_with("1.") {
            let value = self.oci_version.clone();
            return Err(SpecError::BadValue { what: "ociVersion is not 1.x", value });
        }
        self.process.as_ref().ok_or(SpecError::Value("there is no process"))?.check()?;
        for mount in &self.mounts {
            if !mount.destination.is_absolute() {
                let value = mount.destination.display().to_string();
                return Err(SpecError::BadValue { what: "a mount's destination is not absolute", value });
            }
            if mount.is_bind() && mount.source.is_none() {
                let value = mount.destination.display().to_string();
                return Err(SpecError::BadValue { what: "a bind mount has no source", value });
            }
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| name.len() > 64) {
            return Err(SpecError::BadValue { what: "the host name is too long", value: name.clone() });
        }
        Ok(())
    }

    /// The first process.
    ///
    /// # Errors
    /// [`SpecError::Value`], if there is none.
    pub fn process(&self) -> Result<&Process, SpecError> {
        self.process.as_ref().ok_or(SpecError::Value("there is no process"))
    }
}

/// Reads a process description, as `exec --process` takes it.
///
/// # Errors
/// [`SpecError`], when it cannot be read or has no meaning.
pub fn load_process(path: &Path) -> Result<Process, SpecError> {
    let text = read_limited(path).map_err(|source| SpecError::Read { path: path.to_path_buf(), source })?;
    let process: Process = serde_json::from_slice(&text)
        .map_err(|source| SpecError::Parse { path: path.to_path_buf(), source })?;
    process.check()?;
    Ok(process)
}

/// Reads a file that must not make the reader wait, as a FIFO does.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    read_limited(path)
}

fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    let mut text = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
