//! `exec`: runs another program in a container.
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sandbox::control::{Channel, Request, Response};
use sandbox::launch::ProxyArgs;
use sandbox::spec::{Process, Spec, User};

use super::create::write_pid;
use crate::cli::Global;
use crate::container::Container;
use crate::follow::{self, RawTerminal};
use crate::state::Status;
use crate::{console, launch, log};

/// What `exec` takes.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Exec {
    /// File that describes the process
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Environment, added to the container's
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long)]
    pub(crate) additional_gids: Vec<u32>,
    /// Capabilities, added
    #[arg(short = 'c', long)]
    pub(crate) cap: Vec<String>,
    /// Do not wait for the end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File that the id of a process of the host is written to, which ends as the program ends
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// File that the program's id in the container is written to
    #[arg(long)]
    pub(crate) internal_pid_file: Option<PathBuf>,
    /// Socket that the terminal is sent to
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// `no_new_privs`
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// How many descriptors above 2 the program gets
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Do it in a paused container as well: the program runs once that is resumed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Accepted for other runtimes' sake: no program of the sandbox makes host calls that AppArmor sees
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Likewise, for SELinux
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Accepted for other runtimes' sake: the program is in the sandbox's control group
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Name of the container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// What to run.
fn process(container: &Container, args: &Exec) -> Result<Process> {
    if let Some(path) = &args.process {
        return Ok(sandbox::spec::load_process(path)?);
    }
    ensure!(!args.args.is_empty(), "exec needs a program to run");
    let mut process = Spec::load(&container.state.bundle)?.process()?.clone();
    process.args.clone_from(&args.args);
    process.terminal = args.tty;
    process.env.extend(args.env.iter().cloned());
    process.no_new_privileges |= args.no_new_privs;
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number = |text: &str| text.parse().with_context(|| format!("--user {user}: not a number"));
        process.user = User { uid: number(uid)?, gid: number(gid)?, ..User::default() };
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if !args.cap.is_empty() {
        let caps = process.capabilities.get_or_insert_default();
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    process.check()?;
    Ok(process)
}

/// Runs the program.
///
/// # Errors
/// When the container does not run, or the program cannot.
pub(crate) fn run(global: &Global, args: &Exec) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    match container.state.status() {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused to override)"),
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Creating => bail!("cannot exec in a container that is being created"),
    }
    let process = launch::allowed(global, process(&container, args)?);
    let tty = match (&args.console_socket, process.terminal, args.detach) {
        (Some(_), true, _) => None,
        (None, true, true) => bail!("a terminal with --detach needs --console-socket"),
        _ => console::own(process.terminal)?,
    };
    let streams = match (&args.console_socket, process.terminal) {
        (Some(socket), true) => console::for_socket(socket, process.console_size)?,
        _ => console::streams(tty.as_ref())?,
    };
    let channel = container.connect()?;
    let preserved = console::preserved(args.preserve_fds)?;
    let fds: Vec<_> = streams.fds.iter().chain(&preserved).map(AsFd::as_fd).collect();
    channel.send(&Request::Exec { process: Box::new(process), preserved: preserved.len() }, &fds)?;
    let pid = match channel.receive::<Response>()?.0 {
        Response::Started { pid } => pid,
        Response::Error(message) => bail!("{message}"),
        other => bail!("the sentry answers {other:?}"),
    };
    write_pid(args.internal_pid_file.as_ref(), pid)?;
    // The terminal that went to a socket: this process tells its size.
    let own = if streams.own_terminal { streams.fds.into_iter().next() } else { None };
    if args.detach {
        return detach(global, args, pid, &channel, own.as_ref());
    }
    write_pid(args.pid_file.as_ref(), i32::try_from(std::process::id())?)?;
    let raw = tty.as_ref().map(OwnedFd::try_clone).transpose()?.map(RawTerminal::new).transpose()?;
    let code = follow::process(Some(pid), &channel, tty.as_ref().or(own.as_ref()));
    drop(raw);
    code
}

/// Leaves a process behind that ends as the program ends, for a caller that waits for it.
fn detach(global: &Global, args: &Exec, pid: i32, channel: &Channel, tty: Option<&OwnedFd>) -> Result<i32> {
    let report = match log::report(global, &args.id)? {
        Some(file) => file,
        // Standard error may be a pipe that somebody reads to its end.
        None => File::options().write(true).open("/dev/null").context("open /dev/null")?,
    };
    let proxy = sandbox::launch::proxy(&ProxyArgs {
        channel,
        pid: Some(pid),
        terminal: tty.map(AsFd::as_fd),
        doors: &[],
        report: report.as_fd(),
        report_json: log::reports_json(global),
    })?;
    write_pid(args.pid_file.as_ref(), proxy)?;
    Ok(0)
}
