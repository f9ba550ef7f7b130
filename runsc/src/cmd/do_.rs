//! `do`: runs a program of this machine in a sandbox, over its files, which stay as they are.
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sandbox::spec::{Mount, Process, Root, Spec};

use super::spec::all_capabilities;
use crate::cli::Global;

/// What `do` takes.
#[derive(Args, Debug)]
pub(crate) struct Do {
    /// Directory that the program sees as its root
    #[arg(long = "root", value_name = "DIR", default_value = "/", id = "do_root")]
    pub(crate) root: PathBuf,
    /// Working directory; this process's own by default
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Runs the program.
///
/// # Errors
/// When the sandbox or the program cannot run.
pub(crate) fn run(global: &Global, args: &Do) -> Result<i32> {
    let here = std::env::current_dir().context("the working directory")?;
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None if args.root.as_os_str() == "/" => here.clone(),
        None => PathBuf::from("/"),
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
        .collect();
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let spec = Spec {
        oci_version: sandbox::spec::OCI_VERSION.to_owned(),
        process: Some(Process {
            terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            args: args.args.clone(),
            env,
            cwd,
            capabilities: Some(all_capabilities()),
            ..Process::default()
        }),
        root: Some(Root { path: std::path::absolute(&args.root)?, readonly: false }),
        hostname,
        mounts: vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777"]),
        ],
        ..Spec::default()
    };
    let mut global = global.clone();
    // Nobody who uses `do` wants to change the machine.
    if global.overlay2 == "none" {
        global.overlay2 = "root:memory".to_owned();
    }
    let id = format!("do-{}", std::process::id());
    super::run::foreground(&global, &id, (&here, &spec), None, 0)
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.to_owned()),
        source: Some(kind.into()),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}
