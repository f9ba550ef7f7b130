//! The sentry: its process, and the kernel that it runs.
mod args;
mod clock;
mod confine;
mod container;
mod events;
mod home;
mod hooks;
mod identity;
mod machine;
mod memory;
mod mount_options;
mod notifier;
mod profile;
pub(crate) mod report;
mod root;
mod sandbox;
mod schedule;
mod server;
mod stream;
mod sysctl;
mod terminal;
mod watch;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::ExitStatus;

pub use args::{BootArgs, GuestMount};
pub(crate) use confine::leave_host;
pub use mount_options::file_system_options;

use crate::control::{Channel, ChannelError, Request, Response};
use crate::launch::CHANNEL_FD;
use crate::sys;
use container::{Container, Started};
use notifier::Notifier;

/// How long the output of a container that ended may take to reach the host.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a sentry does not run.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A host call failed.
    #[error("{what}: {source}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// What the host says.
        #[source]
        source: std::io::Error,
    },
    /// The platform does not work here.
    #[error(transparent)]
    Platform(#[from] platform::PlatformError),
    /// The filter cannot be made.
    #[error("seccomp: {0}")]
    Filter(#[from] crate::seccomp::FilterError),
    /// The launcher is gone or makes no sense.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// There is no such back end.
    #[error("there is no platform {0:?}")]
    UnknownPlatform(String),
    /// A call that is to be traced does not exist.
    #[error("--strace-syscalls: there is no system call {0:?}")]
    UnknownSyscall(String),
    /// The container cannot be made.
    #[error("{0}")]
    Container(String),
}

pub(crate) fn host(what: &'static str) -> impl FnOnce(std::io::Error) -> BootError {
    move |source| BootError::Host { what, source }
}

fn host_nix(what: &'static str) -> impl FnOnce(nix::Error) -> BootError {
    move |error| host(what)(error.into())
}

/// The descriptors that come with [`Request::Boot`].
#[derive(Debug)]
struct BootFds {
    listener: OwnedFd,
    exit_record: OwnedFd,
    /// Counts how often memory ran out.
    oom_record: OwnedFd,
    gofer: OwnedFd,
    /// Where events are told, if they are.
    events: Option<OwnedFd>,
    streams: Vec<OwnedFd>,
}

impl BootFds {
    fn new(fds: Vec<OwnedFd>, args: &BootArgs) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (listener, exit_record, oom_record) = (fds.next()?, fds.next()?, fds.next()?);
        let gofer = fds.next()?;
        let events = if args.events { Some(fds.next()?) } else { None };
        Some(Self { listener, exit_record, oom_record, gofer, events, streams: fds.collect() })
    }
}

/// The program `runsc boot`; returns the exit code of the container.
#[must_use]
pub fn main() -> i32 {
    sys::bound_arenas();
    let channel = match sys::take_fd(CHANNEL_FD) {
        Ok(fd) => Channel::new(fd),
        Err(_) => return 1,
    };
    match boot(&channel) {
        Ok(code) => code,
        Err(error) => {
            // A launcher that is gone needs no answer.
            let _unheard = channel.send(&Response::Error(error.to_string()), &[]);
            1
        }
    }
}

fn boot(channel: &Channel) -> Result<i32, BootError> {
    let machine = machine::Machine::look();
    leave_host(c"runsc-sentry")?;
    confine::allow_stubs()?;
    let (request, fds) = channel.receive::<Request>()?;
    let unclear = || BootError::Container("the launcher does not say what to boot".to_owned());
    let Request::Boot(args) = request else { return Err(unclear()) };
    let mut fds = BootFds::new(fds, &args).ok_or_else(unclear)?;
    report::set_json(args.report_json);
    report::install(args.debug);
    if let Some(name) = args.strace.as_deref().and_then(syscalls::strace::StraceOptions::unknown) {
        return Err(BootError::UnknownSyscall(name.to_owned()));
    }
    watch::block_signals().map_err(host_nix("block signals"))?;
    let platform = match args.platform.as_str() {
        "ptrace" => platform::ptrace::Ptrace::new()?,
        "" | "systrap" => platform::systrap::Systrap::new(platform::systrap::Options {
            patching: !args.disable_patching,
            ..platform::systrap::Options::default()
        })?,
        other => return Err(BootError::UnknownPlatform(other.to_owned())),
    };
    let memory = memmap::MemoryFile::new().map_err(host("make the memory file"))?;
    let notifier = Notifier::new().map_err(host_nix("epoll"))?;
    let gofer = crate::gofer::connect(fds.gofer.try_clone().map_err(host("dup"))?)
        .map_err(|errno| BootError::Container(format!("the gofer does not answer: {errno}")))?;
    let watch = watch::Watch::new(&notifier, fds.gofer).map_err(host_nix("watch the gofer"))?;
    confine::filter(&*platform)?;
    let kernel = machine.kernel(platform, memory, &args);
    notifier.start().map_err(host("start a thread"))?;
    machine.register(&kernel, &args);
    events::observe(&kernel, fds.events.take(), &args.id);
    memory::record(&kernel, fds.oom_record);
    let sandbox = Arc::new(sandbox::Sandbox::new(Arc::clone(&kernel), notifier, Arc::clone(&machine.traced)));
    let container = sandbox.build(kernel, &gofer, &args)?;
    let prepared =
        container.prepare(args.process.clone(), fds.streams, args.preserved).map_err(BootError::Container)?;
    watch.tell(&container);
    let started = server::serve(&sandbox, &container, channel, fds.listener, prepared)?;
    Ok(finish(&container, &started, &fds.exit_record))
}

/// Waits for the end of the first process, and of what it wrote; gives the container's exit code.
fn finish(container: &Container, started: &Started, record: &OwnedFd) -> i32 {
    let code = ExitStatus::shell_code(container.kernel.wait_exit(&started.group));
    if let Some(relay) = &started.relay {
        container.kernel.kill_all();
        relay.drain(Instant::now() + DRAIN);
    }
    // The process's own exit code says the same.
    let _unrecorded = nix::unistd::write(record, code.to_string().as_bytes());
    code
}
