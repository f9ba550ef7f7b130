//! Makes a container: its folder, its processes, its state.
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use sandbox::boot::{BootArgs, GuestMount};
use sandbox::control;
use sandbox::launch::{HostTree, LaunchArgs, Launched};
use sandbox::spec::Spec;

use crate::cli::{FileAccess, Global, Network};
use crate::container::Container;
use crate::state::{Folder, State, Status, start_time};
use crate::{hooks, log, pod};

/// What a new container talks to.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Its three streams, or its terminal alone.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the terminal is nobody else's.
    pub(crate) own_terminal: bool,
}

impl Streams {
    /// The streams of this process.
    ///
    /// # Errors
    /// When one cannot be duplicated.
    pub(crate) fn inherit() -> Result<Self> {
        let fds = vec![
            std::io::stdin().as_fd().try_clone_to_owned()?,
            std::io::stdout().as_fd().try_clone_to_owned()?,
            std::io::stderr().as_fd().try_clone_to_owned()?,
        ];
        Ok(Self { fds, own_terminal: false })
    }
}

/// A container whose program waits to be started.
#[derive(Debug)]
pub(crate) struct Created {
    /// It.
    pub(crate) container: Container,
    /// Its processes, children of this one.
    pub(crate) launched: Launched,
}

/// Makes a container.
///
/// # Errors
/// When that is not possible; then nothing of it is left.
pub(crate) fn create(
    global: &Global,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    streams: Streams,
) -> Result<Created> {
    let root = spec.root.as_ref().context("config.json: there is no root")?;
    ensure!(root.path.is_dir(), "root {} is not a directory", root.path.display());
    if global.network == Network::Sandbox {
        log::warn(
            "the container has no network but its own loopback: --network=sandbox is not supported yet",
        );
    }
    let first = pod::sandbox_of(&spec.annotations)?.map(|first| pod::open(global, first)).transpose()?;
    let mut folder = Folder::create(&global.root, id)?;
    let (trees, mounts) = trees(global, bundle, spec)?;
    let args = LaunchArgs {
        boot: boot_args(global, id, spec, mounts)?,
        trees,
        listener: control::listen_in(&folder.path).context("make the control socket")?,
        exit_record: File::create(folder.exit_record()).context("make the exit record")?.into(),
        streams: streams.fds,
        own_terminal: streams.own_terminal,
        report: report(global)?,
    };
    let launched = match &first {
        None => sandbox::launch::launch(args)?,
        Some(first) => join(first, args)?,
    };
    let state = State {
        id: id.to_owned(),
        bundle: bundle.to_path_buf(),
        rootfs: root.path.clone(),
        sandbox: first.map(|first| first.state.id),
        pid: launched.sentry,
        pid_start: start_time(launched.sentry).unwrap_or(0),
        gofer: launched.gofer,
        gofer_start: start_time(launched.gofer).unwrap_or(0),
        created: log::timestamp(SystemTime::now()),
        started: false,
        owner: nix::unistd::getuid().as_raw(),
        annotations: spec.annotations.clone(),
        hooks: spec.hooks.clone().unwrap_or_default(),
    };
    let finish = || {
        let list = &state.hooks;
        for (kind, hooks) in [
            ("prestart", &list.prestart),
            ("createRuntime", &list.create_runtime),
            ("createContainer", &list.create_container),
        ] {
            hooks::run(kind, hooks, &state, Status::Creating)?;
        }
        folder.save(&state)
    };
    let finished = finish();
    folder.keep();
    let container = Container { folder, state };
    if let Err(error) = finished {
        container.destroy()?;
        container.folder.remove()?;
        return Err(error);
    }
    Ok(Created { container, launched })
}

/// Makes a container in the sandbox of another.
fn join(first: &Container, args: LaunchArgs) -> Result<Launched> {
    let terminal = match args.streams.first() {
        Some(terminal) if args.own_terminal => Some(terminal.try_clone()?),
        _ => None,
    };
    let joined = sandbox::launch::join(&first.folder.path, args)?;
    let sentry = pod::stand_in(&joined.channel, terminal.as_ref())?;
    Ok(Launched { sentry, gofer: joined.gofer, channel: joined.channel })
}

/// Where the processes of the sandbox report what goes wrong with themselves.
fn report(global: &Global) -> Result<OwnedFd> {
    match global.debug_log.as_ref().or(global.log.as_ref()) {
        Some(path) => Ok(log::append(path)?.into()),
        None => Ok(std::io::stderr().as_fd().try_clone_to_owned()?),
    }
}

/// Whether changes of the root stay in memory.
fn overlay(global: &Global) -> Result<bool> {
    let medium = global.overlay2.split_once(':').map_or(global.overlay2.as_str(), |(_, medium)| medium);
    match medium {
        "none" => Ok(false),
        "self" | "memory" => Ok(true),
        _ => anyhow::bail!(
            "--overlay2={}: not none, root:self, root:memory, all:self or all:memory",
            global.overlay2
        ),
    }
}

fn boot_args(global: &Global, id: &str, spec: &Spec, mounts: Vec<GuestMount>) -> Result<BootArgs> {
    let linux = spec.linux.clone().unwrap_or_default();
    let text = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect();
    let readonly_root = spec.root.as_ref().is_some_and(|root| root.readonly);
    Ok(BootArgs {
        id: id.to_owned(),
        process: spec.process()?.clone(),
        hostname: spec.hostname.clone().unwrap_or_else(|| "runsc".to_owned()),
        domainname: spec.domainname.clone(),
        mounts,
        masked_paths: text(&linux.masked_paths),
        readonly_paths: text(&linux.readonly_paths),
        devices: linux.devices,
        readonly_root,
        overlay: overlay(global)?,
        platform: global.platform.clone(),
        disable_patching: global.systrap_disable_syscall_patching,
        strace: (global.strace || !global.strace_syscalls.is_empty()).then(|| global.strace_syscalls.clone()),
        debug: global.debug,
        shared_files: global.file_access == FileAccess::Shared,
    })
}

/// What the gofer serves, and what is mounted in the container.
fn trees(global: &Global, bundle: &Path, spec: &Spec) -> Result<(Vec<HostTree>, Vec<GuestMount>)> {
    let root = spec.root.as_ref().context("config.json: there is no root")?;
    let readonly = overlay(global)?;
    let mut trees = vec![HostTree { source: root.path.clone(), recursive: true, readonly }];
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        let mut tree = None;
        if let (true, Some(source)) = (mount.is_bind(), &mount.source) {
            tree = Some(trees.len());
            trees.push(HostTree {
                source: bundle.join(source),
                recursive: !mount.has("bind"),
                readonly: mount.has("ro"),
            });
        }
        mounts.push(GuestMount { mount: mount.clone(), tree });
    }
    Ok((trees, mounts))
}
