//! What the command line can say.
mod flags;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileAccess {
    /// Nobody.
    #[value(alias = "proxy")]
    Exclusive,
    /// Others.
    Shared,
}

/// Which sockets of the host programs may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostUds {
    /// None.
    #[default]
    None,
    /// Those that are there.
    Open,
    /// Those that they make.
    Create,
    /// Both.
    All,
}

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Global {
    /// Directory that holds the state of containers; that of the user's session for a user other than root
    #[arg(long, value_name = "DIR", default_value_os_t = default_root())]
    pub(crate) root: PathBuf,
    /// File that errors are appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Descriptor that errors are written to, in place of a file
    #[arg(long, value_name = "FD")]
    pub(crate) log_fd: Option<i32>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Report details; a host call that the sandbox's filter forbids is logged, not deadly
    #[arg(long)]
    pub(crate) debug: bool,
    /// File that the sandbox's own report is appended to; a directory gets a file a command, and %ID%, %COMMAND% and
    /// %TIMESTAMP% are replaced
    #[arg(long, visible_alias = "debug-log-dir", value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
    /// Format of the sandbox's report: always text
    #[arg(long, value_enum, default_value_t)]
    pub(crate) debug_log_format: LogFormat,
    /// Accepted for other runtimes' sake: the sandbox makes no packets
    #[arg(long)]
    pub(crate) log_packets: bool,
    /// Report system calls of the container
    #[arg(long)]
    pub(crate) strace: bool,
    /// Only these system calls, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) strace_syscalls: Vec<String>,
    /// How many bytes of a buffer are reported
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub(crate) strace_log_size: usize,
    /// File or FIFO that what programs do is told to, a line of JSON an event; %ID% is replaced. The annotation
    /// dev.sentrybox.events=off excepts a container
    #[arg(long, value_name = "FILE")]
    pub(crate) events_log: Option<PathBuf>,
    /// What runs the container's code
    #[arg(long, value_name = "NAME", default_value = "systrap")]
    pub(crate) platform: String,
    /// Leave the container's system calls as they are: each is a signal then
    #[arg(long)]
    pub(crate) systrap_disable_syscall_patching: bool,
    /// Network of the container
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network: Network,
    /// Programs may have CAP_NET_RAW, if their description says so; without this they do not, whatever it says
    #[arg(long)]
    pub(crate) net_raw: bool,
    /// What changes of the root go to: none (the root itself), root:self, root:memory, all:memory (memory)
    #[arg(long, value_name = "MEDIUM", default_value = "none")]
    pub(crate) overlay2: String,
    /// Changes of the root stay in memory, as --overlay2=root:memory
    #[arg(long)]
    pub(crate) overlay: bool,
    /// Whether others change files of the root while the container runs; unless said, they do if changes go to the root itself
    #[arg(long, value_enum)]
    pub(crate) file_access: Option<FileAccess>,
    /// Whether others change files that are mounted into the container
    #[arg(long, value_enum, default_value_t = FileAccess::Shared)]
    pub(crate) file_access_mounts: FileAccess,
    /// Which sockets of the host that lie in the container's files programs may use
    #[arg(long, value_enum, default_value_t)]
    pub(crate) host_uds: HostUds,
    /// Apply the configuration's profile of system calls inside the sandbox
    #[arg(long, action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(crate) oci_seccomp: bool,
    /// Make no control groups
    #[arg(long)]
    pub(crate) ignore_cgroups: bool,
    /// Make control groups by systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Make no use of what only root may; who is not root is found out
    #[arg(long, value_name = "auto|true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rootless: Option<String>,
    /// Whether this process is in a user namespace with the ids of the container already
    #[arg(skip)]
    pub(crate) mapped: bool,
}

/// Where the state of containers is kept.
fn default_root() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/run/runsc".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("runsc"),
        None => format!("/tmp/runsc-{}", nix::unistd::geteuid()).into(),
    }
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
    /// Write a container's state to files: not supported yet
    Checkpoint(cmd::checkpoint::Checkpoint),
    /// Create a container; its program waits for start
    Create(cmd::create::Create),
    /// Look into a sandbox that runs
    Debug(cmd::debug::Debug),
    /// Remove a container that has stopped
    Delete(cmd::delete::Delete),
    /// Run a program of this machine in a sandbox
    Do(cmd::do_::Do),
    /// Show what a container uses, and that memory ran out
    Events(cmd::events::Events),
    /// Run another program in a container
    Exec(cmd::exec::Exec),
    /// Show what the runtime can do, as JSON
    Features,
    /// Tell docker of this runtime
    Install(cmd::install::Install),
    /// Send a signal to a container
    Kill(cmd::kill::Kill),
    /// List containers
    List(cmd::list::List),
    /// Keep the programs of a container from running
    Pause(cmd::pause::Pause),
    /// List the processes of a container
    Ps(cmd::ps::Ps),
    /// Bring back a container from files: not supported yet
    Restore(cmd::checkpoint::Checkpoint),
    /// Let the programs of a paused container run
    Resume(cmd::pause::Pause),
    /// Create and start a container, and wait for its end
    Run(cmd::run::Run),
    /// Write a config.json to start from
    Spec(cmd::spec::Spec),
    /// Start the program of a container
    Start(cmd::start::Start),
    /// Show the state of a container
    State(cmd::state::State),
    /// Let docker forget this runtime
    Uninstall(cmd::install::Install),
    /// Change the limits of a container
    Update(cmd::update::Update),
    /// Wait for the end of a container, and show its exit status
    Wait(cmd::wait::Wait),
}

/// Reads the command line; says what is wrong in one line, or what was asked for.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Cli, ExitCode> {
    let args = flags::normal(args);
    if asks_for_version(&args) {
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

/// Whether the version is asked for in front of a verb.
fn asks_for_version(args: &[OsString]) -> bool {
    let command = Cli::command();
    let is_verb = |arg: &OsString| command.get_subcommands().any(|verb| arg == verb.get_name());
    args.iter().skip(1).take_while(|arg| !is_verb(arg)).any(|arg| arg == "--version" || arg == "-v")
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
