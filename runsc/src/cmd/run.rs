//! `run`: create, start, wait, delete.
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sandbox::spec::Spec;

use super::create::{self, Create};
use crate::cli::Global;
use crate::console;
use crate::follow::{self, RawTerminal};
use crate::launch::{self, Created, Streams};

/// What `run` takes.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Do not wait for the end
    #[arg(short, long)]
    pub(crate) detach: bool,
}

/// Runs.
///
/// # Errors
/// When the container cannot be made or started; then nothing of it is left.
pub(crate) fn run(global: &Global, args: &Run) -> Result<i32> {
    let (bundle, spec) = create::load(&args.create.bundle)?;
    let terminal = spec.process()?.terminal;
    let size = spec.process()?.console_size;
    let preserve = args.create.preserve_fds;
    match (&args.create.console_socket, terminal) {
        (Some(socket), true) => {
            let streams = console::for_socket(socket, size)?.with_preserved(preserve)?;
            let created = begin(global, args, &bundle, &spec, streams)?;
            if args.detach { Ok(0) } else { end(created, None) }
        }
        (None, true) if args.detach => bail!("process.terminal with --detach needs --console-socket"),
        _ if args.detach => {
            begin(global, args, &bundle, &spec, Streams::inherit()?.with_preserved(preserve)?)?;
            Ok(0)
        }
        _ => foreground(global, &args.create.id, (&bundle, &spec), args.create.pid_file.as_ref(), preserve),
    }
}

/// Runs a container on the streams of this process to its end.
///
/// # Errors
/// As [`run`].
pub(crate) fn foreground(
    global: &Global,
    id: &str,
    (bundle, spec): (&Path, &Spec),
    pid_file: Option<&PathBuf>,
    preserve: u32,
) -> Result<i32> {
    let tty = console::own(spec.process()?.terminal)?;
    let streams = console::streams(tty.as_ref())?.with_preserved(preserve)?;
    let mut created = launch::create(global, id, bundle, spec, streams)?;
    if let Err(error) = start(&mut created, pid_file) {
        created.container.destroy()?;
        super::delete::remove(created.container)?;
        return Err(error);
    }
    end(created, tty)
}

fn begin(global: &Global, args: &Run, bundle: &Path, spec: &Spec, streams: Streams) -> Result<Created> {
    let mut created = launch::create(global, &args.create.id, bundle, spec, streams)?;
    if let Err(error) = start(&mut created, args.create.pid_file.as_ref()) {
        created.container.destroy()?;
        super::delete::remove(created.container)?;
        return Err(error);
    }
    Ok(created)
}

fn start(created: &mut Created, pid_file: Option<&PathBuf>) -> Result<()> {
    create::write_pid(pid_file, created.launched.sentry)?;
    super::start::started(&mut created.container)
}

/// Waits for the end of a container of ours, and removes it.
fn end(created: Created, tty: Option<OwnedFd>) -> Result<i32> {
    let raw = tty.as_ref().map(OwnedFd::try_clone).transpose()?.map(RawTerminal::new).transpose()?;
    let code = follow::sentry(created.launched.sentry, &created.launched.channel, tty.as_ref());
    drop(raw);
    created.container.destroy()?;
    // It ends with the sentry; here it is our child.
    let _reaped_already = waitpid(Pid::from_raw(created.launched.gofer), None);
    super::delete::remove(created.container)?;
    code
}
