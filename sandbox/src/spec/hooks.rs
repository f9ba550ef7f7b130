//! Hooks: programs of the host.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A program of the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hook {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments, its name first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// How many seconds it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// The programs, by when they run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// After the sandbox exists, before the program starts (deprecated in the specification, in use by network plugins).
    pub prestart: Vec<Hook>,
    /// The same, its successor.
    pub create_runtime: Vec<Hook>,
    /// After those, still by `create`.
    pub create_container: Vec<Hook>,
    /// By `start`, before the program runs.
    pub start_container: Vec<Hook>,
    /// After it started.
    pub poststart: Vec<Hook>,
    /// After `delete`.
    pub poststop: Vec<Hook>,
}
