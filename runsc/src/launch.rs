//! Makes a container: its folder, its processes, its state.
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use sandbox::boot::{BootArgs, GuestMount, file_system_options};
use sandbox::control::{self, Request};
use sandbox::launch::{BeforeHooks, HostTree, LaunchArgs, Launched, ProxyArgs};
use sandbox::spec::{IdMappings, Process, Spec};

use crate::cgroup::{Groups, Keeper};
use crate::cli::{FileAccess, Global, HostUds, Network};
use crate::container::{Container, oci_state};
use crate::state::{Folder, State, Status};
use crate::{events, hooks, ids, log, namespaces, pod};

/// What a new container talks to.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Its three streams, or its terminal alone.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the terminal is nobody else's.
    pub(crate) own_terminal: bool,
    /// How many of the last are no streams, but what the program gets from 3 up.
    pub(crate) preserved: usize,
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
        Ok(Self { fds, own_terminal: false, preserved: 0 })
    }

    /// Adds what the program gets from 3 up.
    ///
    /// # Errors
    /// When one is not open.
    pub(crate) fn with_preserved(mut self, count: u32) -> Result<Self> {
        let preserved = crate::console::preserved(count)?;
        self.preserved = preserved.len();
        self.fds.extend(preserved);
        Ok(self)
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
    if global.host_uds != HostUds::None {
        log::warn("sockets of the host cannot be connected to or made: --host-uds is not supported yet");
    }
    for text in spec.ignored() {
        log::warn(&text);
    }
    let first = pod::sandbox_of(&spec.annotations)?.map(|first| pod::open(global, first)).transpose()?;
    namespaces::check(spec)?;
    let network = namespaces::join(spec, first.as_ref())?;
    let ids = ids::of(spec, first.as_ref())?;
    let (trees, mounts) = trees(global, bundle, spec, ids.as_ref())?;
    let boot =
        BootArgs { preserved: streams.preserved, ids: ids.clone(), ..boot_args(global, id, spec, mounts)? };
    let mut folder = Folder::create(&global.root, id)?;
    let mut state = State {
        id: id.to_owned(),
        bundle: bundle.to_path_buf(),
        rootfs: root.path.clone(),
        sandbox: first.as_ref().map(|first| first.state.id.clone()),
        created: log::timestamp(SystemTime::now()),
        ids,
        owner: nix::unistd::getuid().as_raw(),
        annotations: spec.annotations.clone(),
        hooks: spec.hooks.clone().unwrap_or_default(),
        ..State::default()
    };
    let _keeper = make_groups(global, spec, &mut state, &folder)?;
    let launched = match start_processes(
        global,
        spec,
        (&mut state, first.as_ref()),
        &folder,
        (boot, trees, network),
        streams,
    ) {
        Ok(launched) => launched,
        Err(error) => {
            // The first error is the one to tell.
            let _left = state.groups.remove();
            return Err(error);
        }
    };
    state.set_processes(launched.sentry, launched.gofer);
    folder.keep();
    let mut container = Container { folder, state };
    if let Err(error) = complete(&mut container, &launched) {
        container.destroy()?;
        crate::cmd::delete::remove(container)?;
        return Err(error);
    }
    Ok(Created { container, launched })
}

/// Makes the control groups. The state that names them is written first: what is made is found again, whatever happens.
fn make_groups(global: &Global, spec: &Spec, state: &mut State, folder: &Folder) -> Result<Option<Keeper>> {
    let linux = spec.linux.clone().unwrap_or_default();
    let resources = linux.resources.unwrap_or_default();
    let path = match linux.cgroups_path {
        _ if global.ignore_cgroups => return Ok(None),
        Some(path) if !path.is_empty() => path,
        _ if global.systemd_cgroup => format!("system.slice:runsc:{}", state.id),
        _ if resources.limits_anything() => format!("/{}", state.id),
        _ => return Ok(None),
    };
    state.groups = Groups::planned(&path, global.systemd_cgroup)?;
    folder.save(state)?;
    state.groups.create(&resources)
}

/// Starts gofer and sentry.
fn start_processes(
    global: &Global,
    spec: &Spec,
    (state, first): (&mut State, Option<&Container>),
    folder: &Folder,
    (boot, trees, network): (BootArgs, Vec<HostTree>, Option<OwnedFd>),
    streams: Streams,
) -> Result<Launched> {
    let events = events::file(global, &state.id, &spec.annotations)?;
    let args = LaunchArgs {
        boot: BootArgs { events: events.is_some(), ..boot },
        events,
        trees,
        listener: control::listen_in(&folder.path).context("make the control socket")?,
        exit_record: File::create(folder.exit_record()).context("make the exit record")?.into(),
        oom_record: File::create(folder.oom_record()).context("make the record of lacks of memory")?.into(),
        streams: streams.fds,
        own_terminal: streams.own_terminal,
        report: report(global, &state.id)?,
        doors: state.groups.doors()?,
        network,
        // Of a user who is not root this process is root of it already.
        ids: state.ids.clone().filter(|_| !global.mapped),
        create_hooks: state.hooks.create_container.clone(),
        oom_score_adj: spec.process()?.oom_score_adj,
    };
    let mut before_hooks = |sentry, gofer| {
        state.set_processes(sentry, gofer);
        folder.save(state).and_then(|()| runtime_hooks(state)).map_err(|error| format!("{error:#}"))?;
        // They see process ids as the container does.
        let inside = State { pid: 1, ..state.clone() };
        Ok((state.bundle.clone(), oci_state(&inside, Status::Creating).to_string()))
    };
    match first {
        None => Ok(sandbox::launch::launch(args, &mut before_hooks)?),
        Some(first) => join(first, args, &mut before_hooks),
    }
}

/// Runs the hooks that belong to the host, once the sandbox is there.
fn runtime_hooks(state: &State) -> Result<()> {
    hooks::run("prestart", &state.hooks.prestart, state, Status::Creating)?;
    hooks::run("createRuntime", &state.hooks.create_runtime, state, Status::Creating)
}

/// Records the processes, lets them outlive this one, and runs the hooks.
fn complete(container: &mut Container, launched: &Launched) -> Result<()> {
    container.folder.save(&container.state)?;
    launched.channel.send(&Request::Settled, &[])?;
    // Before those that run in the container's namespaces these ran already.
    if container.state.hooks.create_container.is_empty() {
        runtime_hooks(&container.state)?;
    }
    container.state.complete = true;
    container.folder.save(&container.state)
}

/// Makes a container in the sandbox of another.
fn join(first: &Container, args: LaunchArgs, before_hooks: BeforeHooks<'_>) -> Result<Launched> {
    let terminal = match args.streams.first() {
        Some(terminal) if args.own_terminal => Some(terminal.try_clone()?),
        _ => None,
    };
    let doors = args.doors.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>()?;
    let (report, report_json) = (args.report.try_clone()?, args.boot.report_json);
    let joined = sandbox::launch::join((&first.folder.path, first.state.pid), args, before_hooks)?;
    // The container ends with the channel, where this fails.
    let sentry = sandbox::launch::proxy(&ProxyArgs {
        channel: &joined.channel,
        pid: None,
        terminal: terminal.as_ref().map(AsFd::as_fd),
        doors: &doors,
        report: report.as_fd(),
        report_json,
    })?;
    Ok(Launched { sentry, gofer: joined.gofer, channel: joined.channel })
}

/// Where the processes of the sandbox report what goes wrong with themselves.
fn report(global: &Global, id: &str) -> Result<OwnedFd> {
    match log::report(global, id)? {
        Some(file) => Ok(file.into()),
        None => Ok(std::io::stderr().as_fd().try_clone_to_owned()?),
    }
}

/// Whether changes of the root stay in memory.
fn overlay(global: &Global) -> Result<bool> {
    if global.overlay {
        return Ok(true);
    }
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

/// A process without what the command line does not let it have, whatever its description says.
pub(crate) fn allowed(global: &Global, mut process: Process) -> Process {
    if let Some(capabilities) = process.capabilities.as_mut().filter(|_| !global.net_raw) {
        capabilities.remove("CAP_NET_RAW");
    }
    process
}

fn boot_args(global: &Global, id: &str, spec: &Spec, mounts: Vec<GuestMount>) -> Result<BootArgs> {
    let linux = spec.linux.clone().unwrap_or_default();
    let resources = linux.resources.unwrap_or_default();
    let text = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect();
    let readonly_root = spec.root.as_ref().is_some_and(|root| root.readonly);
    Ok(BootArgs {
        id: id.to_owned(),
        process: allowed(global, spec.process()?.clone()),
        hostname: spec.hostname.clone().unwrap_or_else(|| "runsc".to_owned()),
        domainname: spec.domainname.clone(),
        mounts,
        masked_paths: text(&linux.masked_paths),
        readonly_paths: text(&linux.readonly_paths),
        devices: linux.devices,
        seccomp: linux.seccomp.filter(|_| global.oci_seccomp),
        sysctl: linux.sysctl,
        task_limit: resources.task_limit(),
        memory_limit: resources.memory_limit(),
        cpu_limit: resources.cpu_limit(),
        readonly_root,
        overlay: overlay(global)?,
        platform: global.platform.clone(),
        disable_patching: global.systrap_disable_syscall_patching,
        strace: (global.strace || !global.strace_syscalls.is_empty()).then(|| global.strace_syscalls.clone()),
        debug: global.debug,
        shared_files: global.file_access.map_or(!overlay(global)?, |access| access == FileAccess::Shared),
        report_json: log::reports_json(global),
        leased_files: global.file_access.is_none(),
        shared_mounts: global.file_access_mounts == FileAccess::Shared,
        strace_bytes: global.strace_log_size,
        preserved: 0,
        ids: None,
        events: false,
    })
}

/// What the gofer serves, and what is mounted in the container.
fn trees(
    global: &Global,
    bundle: &Path,
    spec: &Spec,
    ids: Option<&IdMappings>,
) -> Result<(Vec<HostTree>, Vec<GuestMount>)> {
    let root = spec.root.as_ref().context("config.json: there is no root")?;
    let readonly = overlay(global)?;
    let mut trees =
        vec![HostTree { source: root.path.clone(), overlay: None, recursive: true, readonly, ids: None }];
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        let mut tree = None;
        let mapped = ids::of_mount(mount, ids)?.map(|ids| (ids, mount.has("ridmap")));
        let source = match &mount.source {
            Some(source) if mount.is_bind() => Some((bundle.join(source), None)),
            _ if mount.is_overlay() => {
                Some((mount.destination.clone(), Some(file_system_options(&mount.options))))
            }
            _ => None,
        };
        if let Some((source, overlay)) = source {
            tree = Some(trees.len());
            let (recursive, readonly) = (!mount.has("bind"), mount.has("ro"));
            trees.push(HostTree { source, overlay, recursive, readonly, ids: mapped });
        }
        mounts.push(GuestMount { mount: mount.clone(), tree });
    }
    Ok((trees, mounts))
}
