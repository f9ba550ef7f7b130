//! Starts the processes of a sandbox: gofer and sentry, side by side, each by its own copy of this program.
mod caps;
mod gofer;
mod namespace;
mod nobody;
mod program;
mod proxy;
mod root;
mod sentry;
mod user_namespace;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::boot::BootArgs;
use crate::control::{self, Channel, ChannelError, Request, Response};
use crate::spec::{Hook, IdMappings};
use crate::sys;

pub(crate) use caps::drop_all as drop_all_capabilities;
pub(crate) use gofer::mount_point;
pub use namespace::open_namespace;
pub(crate) use proxy::{FIRST, READY};
pub use proxy::{ProxyArgs, proxy};
pub(crate) use root::become_empty;
pub use user_namespace::{Mapper, become_root_of};

/// The descriptor number at which either process finds its channel.
pub(crate) const CHANNEL_FD: i32 = 3;

/// A part of the host's file system that the gofer serves.
#[derive(Clone, Debug)]
pub struct HostTree {
    /// Where it lies on the host.
    pub source: PathBuf,
    /// The options of an overlay of host directories, which is mounted for the gofer alone; `source` is no more than its name then.
    pub overlay: Option<String>,
    /// Whether what is mounted below it belongs to it.
    pub recursive: bool,
    /// Whether the gofer itself may not write to it.
    pub readonly: bool,
    /// How the owners of its files are shown, and whether those of what is mounted below as well.
    pub ids: Option<(IdMappings, bool)>,
}

/// What a sandbox is made of.
#[derive(Debug)]
pub struct LaunchArgs {
    /// What the sentry is told.
    pub boot: BootArgs,
    /// What the gofer serves: the container's root first.
    pub trees: Vec<HostTree>,
    /// The socket that the sentry listens on.
    pub listener: OwnedFd,
    /// The file that the sentry records the exit status in.
    pub exit_record: OwnedFd,
    /// The file that the sentry counts lacks of memory in.
    pub oom_record: OwnedFd,
    /// Where events are told, if they are.
    pub events: Option<OwnedFd>,
    /// The container's standard streams, or its terminal alone.
    pub streams: Vec<OwnedFd>,
    /// Where the processes report what goes wrong with themselves.
    pub report: OwnedFd,
    /// Files that each process writes `0` to first, to become a member of control groups.
    pub doors: Vec<OwnedFd>,
    /// The network namespace that the sentry lives in; one of its own if missing.
    pub network: Option<OwnedFd>,
    /// The user namespace whose root the gofer is; this process's if missing.
    pub ids: Option<IdMappings>,
    /// What runs in the gofer's namespaces, before it takes copies of the mounts that it serves.
    pub create_hooks: Vec<Hook>,
    /// How much the host likes to kill the processes when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Whether the terminal becomes the sentry's own, so that it hears of new sizes.
    pub own_terminal: bool,
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A host call failed.
    #[error("{what}: {source}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// What was to be done before the gofer's hooks run failed.
    #[error("{0}")]
    Before(String),
    /// The gofer says why.
    #[error("{0}")]
    Gofer(String),
    /// The sentry says why.
    #[error("{0}")]
    Sentry(String),
    /// A process that was to stay behind says why it does not.
    #[error("a process that stays behind: {0}")]
    Proxy(String),
    /// The sentry's process ended before it answered.
    #[error("the sentry ended early: {0}")]
    Died(String),
    /// The talk with the sentry failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::Host { what, source }
}

/// The processes of a sandbox that is ready. They outlive this value.
#[derive(Debug)]
pub struct Launched {
    /// The process id of the sentry, or of who stands for a container in a sandbox. Its exit code will be the container's.
    pub sentry: i32,
    /// The gofer's.
    pub gofer: i32,
    /// The launcher's channel to the sentry.
    pub channel: Channel,
}

/// What a launcher does before the hooks run that are to run in the gofer's namespaces, once the processes exist: gets the
/// process ids of sentry and gofer, gives the container's bundle and the state that the hooks are told.
pub type BeforeHooks<'a> = &'a mut dyn FnMut(i32, i32) -> Result<(PathBuf, String), String>;

/// Processes that are killed unless the launch succeeds.
#[derive(Debug, Default)]
struct Guard(Vec<i32>);

impl Drop for Guard {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _gone_already = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        for pid in &self.0 {
            let _reaped_already = waitpid(Pid::from_raw(*pid), None);
        }
    }
}

/// Starts a sandbox; on return the container is created, its first process waits for [`Request::Start`]. To be called
/// by a process of one thread.
///
/// # Errors
/// [`LaunchError`]; then no process is left.
pub fn launch(args: LaunchArgs, before_hooks: BeforeHooks<'_>) -> Result<Launched, LaunchError> {
    let program = program::of_this_process().map_err(host("open this program"))?;
    let (channel, sentry_end) = Channel::pair().map_err(host("socketpair"))?;
    let (gofer_socket, gofer_end) = packets().map_err(host("socketpair"))?;
    let mut guard = Guard::default();
    let mut gofer = gofer::start(&program, gofer_end, &args)?;
    guard.0.push(gofer.pid);
    adjust_oom_score(gofer.pid, &args)?;
    let sentry = sentry::start(&program, sentry_end, args.report.as_fd(), &args)?;
    guard.0.push(sentry);
    let told = tell(&channel, &args, gofer_socket.as_fd());
    gofer.run_hooks(sentry, before_hooks)?;
    // A gofer that failed explains a sentry that failed.
    gofer.ready()?;
    told?;
    match channel.receive::<Response>() {
        Ok((Response::Done, _)) => {}
        Ok((Response::Error(message), _)) => return Err(LaunchError::Sentry(message)),
        Ok((other, _)) => return Err(LaunchError::Sentry(format!("answers {other:?}"))),
        Err(ChannelError::Closed) => {
            guard.0.retain(|pid| *pid != sentry);
            return Err(LaunchError::Died(ending(sentry)));
        }
        Err(error) => return Err(error.into()),
    }
    guard.0.clear();
    Ok(Launched { sentry, gofer: gofer.pid, channel })
}

/// Tells the host how much it likes to kill a process when memory is short; before the process has any of its own.
fn adjust_oom_score(pid: i32, args: &LaunchArgs) -> Result<(), LaunchError> {
    let Some(score) = args.oom_score_adj else { return Ok(()) };
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        // A caller without CAP_SYS_RESOURCE cannot go below its own. Programs see what they were promised all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let text = format!("ignored: process.oomScoreAdj {score} on the host: {error}");
            let line = crate::boot::report::format_line(args.boot.report_json, "warning", &text);
            // Nobody is there to be told that this fails.
            let _unheard = nix::unistd::write(&args.report, line.as_bytes());
            Ok(())
        }
        other => other.map_err(host("set oom_score_adj")),
    }
}

/// Makes this process, which is new and has one thread, a member of the sandbox's control groups.
fn enter_groups(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        nix::unistd::write(door, b"0")?;
    }
    Ok(())
}

/// The program that a process of ours is about to execute, at this number; closed by that.
fn program_at(number: i32) -> io::Result<OwnedFd> {
    let program = sys::take_fd(number)?;
    nix::fcntl::fcntl(&program, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(program)
}

/// The connection between sentry and gofer.
fn packets() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Another container in a sandbox that is there. Its gofer outlives this value; the container ends when the channel is closed.
#[derive(Debug)]
pub struct Joined {
    /// The gofer's process id.
    pub gofer: i32,
    /// The container's own channel, on which its end will be told.
    pub channel: Channel,
}

/// Creates a container in the sandbox whose control socket is in this directory, and whose sentry this is; its first process waits for
/// [`Request::Start`]. To be called by a process of one thread.
///
/// # Errors
/// [`LaunchError`]; then no process is left.
pub fn join(
    (sandbox, sentry): (&Path, i32),
    args: LaunchArgs,
    before_hooks: BeforeHooks<'_>,
) -> Result<Joined, LaunchError> {
    let program = program::of_this_process().map_err(host("open this program"))?;
    let channel = control::connect_in(sandbox).map_err(host("connect to the sandbox"))?;
    let (gofer_socket, gofer_end) = packets().map_err(host("socketpair"))?;
    let mut guard = Guard::default();
    let mut gofer = gofer::start(&program, gofer_end, &args)?;
    guard.0.push(gofer.pid);
    adjust_oom_score(gofer.pid, &args)?;
    gofer.run_hooks(sentry, before_hooks)?;
    let request = Request::Create(Box::new(args.boot.clone()));
    let told = channel.send(&request, &descriptors(&args, gofer_socket.as_fd()));
    drop(gofer_socket);
    // A gofer that failed explains a sentry that failed.
    gofer.ready()?;
    told?;
    match channel.receive::<Response>()?.0 {
        Response::Done => {}
        Response::Error(message) => return Err(LaunchError::Sentry(message)),
        other => return Err(LaunchError::Sentry(format!("answers {other:?}"))),
    }
    guard.0.clear();
    Ok(Joined { gofer: gofer.pid, channel })
}

fn tell(channel: &Channel, args: &LaunchArgs, gofer: BorrowedFd<'_>) -> Result<(), ChannelError> {
    channel.send(&Request::Boot(Box::new(args.boot.clone())), &descriptors(args, gofer))
}

/// The descriptors that go with a container's description.
fn descriptors<'a>(args: &'a LaunchArgs, gofer: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
    let mut fds = vec![args.listener.as_fd(), args.exit_record.as_fd(), args.oom_record.as_fd(), gofer];
    fds.extend(args.events.as_ref().map(AsFd::as_fd));
    fds.extend(args.streams.iter().map(AsFd::as_fd));
    fds
}

/// What killed one of the sandbox's processes, in words.
#[must_use]
pub fn killed_by(signal: Signal) -> String {
    match signal {
        Signal::SIGSYS => {
            "killed by SIGSYS: it made a host call that its filter does not allow; the host's audit log names it".to_owned()
        }
        other => format!("killed by {other}"),
    }
}

/// How a child that is ending ended.
fn ending(pid: i32) -> String {
    match waitpid(Pid::from_raw(pid), None) {
        Ok(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => killed_by(signal),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}
