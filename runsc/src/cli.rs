//! What the command line can say.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{cmd, log};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A line of JSON, as runc writes it.
    Json,
}

/// Which network the container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// Only its own loopback.
    None,
    /// The container's network namespace.
    #[default]
    Sandbox,
}

/// Who else may change host files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileAccess {
    /// Nobody.
    #[default]
    Exclusive,
    /// Others.
    Shared,
}

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Global {
    /// Directory that holds the state of containers
    #[arg(long, value_name = "DIR", default_value = "/run/runsc")]
    pub(crate) root: PathBuf,
    /// File that errors are appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Report details; a host call that the sandbox's filter forbids is logged, not deadly
    #[arg(long)]
    pub(crate) debug: bool,
    /// File that the sandbox's own report is appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
    /// Report system calls of the container
    #[arg(long)]
    pub(crate) strace: bool,
    /// Only these system calls, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) strace_syscalls: Vec<String>,
    /// What runs the container's code
    #[arg(long, value_name = "NAME", default_value = "systrap")]
    pub(crate) platform: String,
    /// Leave the container's system calls as they are: each is a signal then
    #[arg(long)]
    pub(crate) systrap_disable_syscall_patching: bool,
    /// Network of the container
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network: Network,
    /// What changes of the root go to: none (the root itself), root:self, root:memory, all:memory (memory)
    #[arg(long, value_name = "MEDIUM", default_value = "root:self")]
    pub(crate) overlay2: String,
    /// Whether others change files of the root while the container runs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) file_access: FileAccess,
    /// Make no control groups
    #[arg(long)]
    pub(crate) ignore_cgroups: bool,
    /// Accepted for other runtimes' sake
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
}

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "runsc",
    about = "Runs OCI containers on a kernel in user space",
    disable_version_flag = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container; its program waits for start
    Create(cmd::create::Create),
    /// Remove a container that has stopped
    Delete(cmd::delete::Delete),
    /// Run a program of this machine in a sandbox
    Do(cmd::do_::Do),
    /// Run another program in a container
    Exec(cmd::exec::Exec),
    /// Send a signal to a container
    Kill(cmd::kill::Kill),
    /// List containers
    List(cmd::list::List),
    /// List the processes of a container
    Ps(cmd::ps::Ps),
    /// Create and start a container, and wait for its end
    Run(cmd::run::Run),
    /// Write a config.json to start from
    Spec(cmd::spec::Spec),
    /// Start the program of a container
    Start(cmd::start::Start),
    /// Show the state of a container
    State(cmd::state::State),
    /// Wait for the end of a container, and show its exit status
    Wait(cmd::wait::Wait),
}

/// Reads the command line; says what is wrong in one line, or what was asked for.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Cli, ExitCode> {
    if args.get(1).is_some_and(|arg| arg == "--version" || arg == "-v") {
        let version = env!("CARGO_PKG_VERSION");
        log::say(&format!("runsc version {version}\nspec: {}", sandbox::spec::OCI_VERSION));
        return Err(ExitCode::SUCCESS);
    }
    Cli::try_parse_from(args).map_err(|error| {
        use clap::error::ErrorKind;
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            log::say(error.to_string().trim_end());
            return ExitCode::SUCCESS;
        }
        log::complain(&anyhow::anyhow!(one_line(&error.to_string())));
        // As runc and other programs do for wrong usage of a flag.
        ExitCode::from(if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            1
        } else {
            2
        })
    })
}

/// The first paragraph of an error, in one line.
fn one_line(text: &str) -> String {
    if text.contains("Usage:") && !text.starts_with("error:") {
        return "no verb; see runsc help".to_owned();
    }
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}
