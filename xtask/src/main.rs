//! Builds, tests, benchmarks and documents the workspace: `cargo xtask VERB`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line tool reports on its standard output")]

mod apt;
mod bad_input;
mod bench;
mod build;
mod bundle;
mod conformance;
mod containerd;
mod cri;
mod demo;
mod docker;
mod hostile_bundle;
mod image;
mod oci;
mod podman;
mod pods;
mod posture;
mod proc;
mod pty;
mod report;
mod rootfs;
mod rootless;
mod run;
mod scheduler;
mod stages;
mod storm;
mod systemd;
#[cfg(test)]
mod tidy;
mod userland;
mod world;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask VERB
  demo                                    build, and show what a program of this machine sees in a sandbox
  test [--list] [STAGE]..                 every test, or the named stages
  build [--shim]                          release build of runsc at target/release/runsc; static, under 10 MB; containerd's shim beside it
  tidy                                    the tests over the workspace itself
  rootfs [--refresh]                      the Debian root that tests run in, at target/rootfs/bookworm
  conformance [--platform P] [--runtime PATH] [--native] [--one-cpu] [--repeat N] [FILTER]..
  userland [--runtime PATH] [FILTER]..    a Debian userland, compared with the same scripts run natively
  oci [--runtime runsc|runc|PATH] [FILTER]..  the suite over the OCI specification
  storm [--quick]                         many containers, processes killed at random: nothing is left
  one-cpu | docker | containerd | podman | pods | world | posture | bad-input | systemd    the harness of that name [--runtime PATH]
  bench --quick [--runtime PATH]          a table, and target/bench/quick.json
  bench platform                          the platforms side by side
  bench apps                              compilers, interpreters, git and a shell, natively and in the sandbox";

/// The options that every harness shares.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    /// Platforms to run on; empty means the default of each harness.
    pub(crate) platform: Option<String>,
    /// The runtime to test in place of the workspace's own.
    pub(crate) runtime: Option<String>,
    /// How often the cases run in the sandbox.
    pub(crate) repeat: Option<String>,
    /// Flags given, without a value.
    pub(crate) flags: Vec<String>,
    /// What remains.
    pub(crate) filters: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || inline.clone().or_else(|| args.next().cloned());
            match name {
                "--platform" => options.platform = value(),
                "--runtime" => options.runtime = value(),
                "--repeat" => options.repeat = value(),
                "--list" | "--refresh" | "--shim" | "--quick" | "--native" | "--one-cpu" => {
                    options.flags.push(name.to_owned());
                }
                _ if name.starts_with('-') => bail!("unknown flag {arg}\n{USAGE}"),
                _ => options.filters.push(arg.clone()),
            }
        }
        Ok(options)
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Whether a name passes the filters.
    pub(crate) fn selects(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a verb; false when a test failed.
fn dispatch() -> Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((verb, rest)) = args.split_first() else { bail!("{USAGE}") };
    let options = Options::parse(rest)?;
    std::env::set_current_dir(run::workspace())?;
    match verb.as_str() {
        "demo" => demo::run().map(|()| true),
        "test" => stages::run(&options),
        "build" if options.has("--shim") => build::release().and_then(|_| build::shim()).map(|_| true),
        "build" => build::release().map(|_| true),
        "rootfs" => rootfs::ensure(options.has("--refresh")).map(|path| {
            println!("{}", path.display());
            true
        }),
        "tidy" => stages::run_one("tidy", &options),
        "conformance" | "one-cpu" | "userland" | "world" | "docker" | "containerd" | "podman" | "pods"
        | "posture" | "bad-input" | "oci" | "storm" | "systemd" => stages::run_one(verb, &options),
        "bench" => bench::run(&options),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(true)
        }
        other => bail!("unknown verb {other}\n{USAGE}"),
    }
}
