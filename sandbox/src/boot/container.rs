//! A container in the sandbox's kernel, and the processes that are started in it from outside.
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::fs::O_RDWR;
use kernel::{
    Credentials, Event, ExecFile, ExecImage, ExecStrings, FdTable, File, InitArgs, Kernel, RLIM_INFINITY,
    TaskResource, ThreadGroup,
};
use sync::{LockClass, Mutex, PollEvents, WaitQueue, Waiter, Wake};
use vfs::tty::{Devpts, Slave, Tty};
use vfs::{At, FS, FileDescription, FsContext, LookupFlags, MountNamespace, OpCx, Path, Vfs};

use super::hooks::StartHooks;
use super::notifier::Notifier;
use super::profile::{self, Profile};
use super::schedule;
use super::stream::HostStream;
use super::terminal::Relay;
use super::{home, identity};
use crate::spec::{Process, Seccomp};

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The umask of a process whose description has none.
const DEFAULT_UMASK: u32 = 0o022;

/// What a container that was not started yet waits for.
#[derive(Debug)]
pub(super) enum Order {
    /// Its first process may run, after these; how that went is to be told.
    Start(SyncSender<Result<(), String>>, StartHooks),
    /// It is not wanted any more.
    End,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Whether it is the one whose end is the sandbox's.
    pub(super) is_first: bool,
    pub(super) kernel: Arc<Kernel>,
    pub(super) namespace: Arc<MountNamespace>,
    pub(super) root: Path,
    pub(super) devpts: Arc<Devpts>,
    pub(super) notifier: Arc<Notifier>,
    /// What decides over system calls of its programs, and whether what it forbids is reported.
    pub(super) profile: Option<(Arc<Profile>, bool)>,
    /// Whether system calls are reported now.
    pub(super) traced: Arc<AtomicBool>,
    pub(super) init: OnceLock<Arc<ThreadGroup>>,
    /// Terminals of processes started from outside, by process id.
    pub(super) terminals: Mutex<Vec<(i32, Arc<Relay>)>>,
    /// Who listens until it is started.
    pub(super) orders: OnceLock<SyncSender<Order>>,
    abandoned: AtomicBool,
    ended: AtomicBool,
    end: WaitQueue,
}

/// A process that was started, and its terminal if it has one.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) group: Arc<ThreadGroup>,
    pub(crate) relay: Option<Arc<Relay>>,
}

/// Where the program of a process is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program<'a> {
    /// As its first argument says.
    ByName,
    /// At this path of the container.
    At(&'a std::path::Path),
}

/// A process that is ready to be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    process: Process,
    streams: Vec<OwnedFd>,
    /// What it gets from 3 up.
    preserved: Vec<OwnedFd>,
    creds: Arc<Credentials>,
    fs: Arc<FsContext>,
    image: ExecImage,
}

impl Container {
    pub(super) fn new(
        is_first: bool,
        kernel: Arc<Kernel>,
        (namespace, root): (Arc<MountNamespace>, Path),
        devpts: Arc<Devpts>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            is_first,
            kernel,
            namespace,
            root,
            devpts,
            notifier,
            profile: None,
            traced: Arc::default(),
            init: OnceLock::new(),
            terminals: Mutex::new(LockClass::Sandbox, Vec::new()),
            orders: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            end: WaitQueue::new(),
        }
    }

    /// Has its programs' system calls decided over, and reported when that is wanted.
    pub(super) fn with(self, profile: Option<(Arc<Profile>, bool)>, traced: Arc<AtomicBool>) -> Self {
        Self { profile, traced, ..self }
    }

    /// Ends it, whether it was started or not.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        if let Some(orders) = self.orders.get() {
            // Where there is no room, or nobody listens any more, it is looked at whether it was abandoned.
            let _looked_at = orders.try_send(Order::End);
        }
        self.kernel.kill_all();
    }

    /// Whether it is to end.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Says that nothing of it runs any more.
    pub(super) fn has_ended(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.end.notify(PollEvents::ALL);
    }

    /// Waits until nothing of it runs any more.
    pub(super) fn wait_for_end(&self) {
        let waiter = Waiter::new();
        let key = self.end.register(PollEvents::ALL, Arc::clone(&waiter) as Arc<dyn Wake>);
        while !self.ended.load(Ordering::SeqCst) {
            waiter.wait(None);
        }
        self.end.unregister(key);
    }

    fn vfs<'a>(&'a self, creds: &'a Arc<Credentials>, fs: &'a FsContext) -> Vfs<'a> {
        Vfs::new(OpCx::of_container(creds, &self.kernel), fs)
    }

    /// Finds everything that a process needs.
    ///
    /// # Errors
    /// What is wrong, in the words of runc where tools look for them.
    pub(crate) fn prepare(
        &self,
        mut process: Process,
        mut streams: Vec<OwnedFd>,
        preserved: usize,
    ) -> Result<Prepared, String> {
        let preserved = streams.split_off(streams.len().saturating_sub(preserved));
        if !process.env.iter().any(|pair| pair.starts_with("HOME=")) {
            let root = Arc::new(Credentials::root());
            let fs = FsContext::new(Arc::clone(&self.namespace), self.root.clone(), DEFAULT_UMASK);
            let home = home::of(&self.vfs(&root, &fs), process.user.uid);
            process.env.push(format!("HOME={home}"));
        }
        let prepared = self.prepare_program(process, Program::ByName, streams)?;
        Ok(Prepared { preserved, ..prepared })
    }

    /// The same, for a program with exactly the environment that its description has.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn prepare_program(
        &self,
        process: Process,
        program: Program<'_>,
        streams: Vec<OwnedFd>,
    ) -> Result<Prepared, String> {
        identity::check(&process, self.kernel.id_maps())?;
        let creds = Arc::new(identity::credentials(&process));
        identity::limits(&process)?;
        schedule::check(&process)?;
        let umask = process.user.umask.unwrap_or(DEFAULT_UMASK) & 0o777;
        let fs = FsContext::new(Arc::clone(&self.namespace), self.root.clone(), umask);
        self.enter(&process, &creds, &fs)?;
        let image = match program {
            Program::ByName => self.find(&process, &creds, &fs)?,
            Program::At(path) => {
                open_program(&self.vfs(&creds, &fs), path.as_os_str().as_bytes()).map_err(words)?
            }
        };
        Ok(Prepared { process, streams, preserved: Vec::new(), creds, fs, image })
    }

    /// Goes to the working directory, which is made if it is missing.
    fn enter(&self, process: &Process, creds: &Arc<Credentials>, fs: &FsContext) -> Result<(), String> {
        let cwd = process.cwd.as_os_str().as_bytes();
        let vfs = self.vfs(creds, fs);
        let mut entered = vfs.chdir(&At::Cwd, cwd, false);
        if entered == Err(Errno::ENOENT) {
            let root = Arc::new(Credentials::root());
            let as_root = self.vfs(&root, fs);
            let parts: Vec<usize> =
                (1..=cwd.len()).filter(|n| cwd.get(*n).is_none_or(|b| *b == b'/')).collect();
            for end in parts {
                // The last step tells what is wrong.
                let _there_already = as_root.mkdir(&At::Cwd, cwd.get(..end).unwrap_or_default(), 0o755);
            }
            entered = vfs.chdir(&At::Cwd, cwd, false);
        }
        entered.map_err(|errno| format!("chdir to cwd ({:?}): {}", process.cwd, words(errno)))
    }

    /// Opens the program.
    fn find(&self, process: &Process, creds: &Arc<Credentials>, fs: &FsContext) -> Result<ExecImage, String> {
        let name = process.args.first().map_or("", String::as_str);
        let vfs = self.vfs(creds, fs);
        if name.contains('/') {
            return open_program(&vfs, name.as_bytes())
                .map_err(|errno| format!("exec: {name:?}: stat {name}: {}", words(errno)));
        }
        let path = process.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
        let mut denied = false;
        for dir in path.unwrap_or(DEFAULT_PATH).split(':') {
            let dir = if dir.is_empty() { "." } else { dir };
            match open_program(&vfs, format!("{dir}/{name}").as_bytes()) {
                Ok(image) => return Ok(image),
                Err(Errno::EACCES) => denied = true,
                Err(_) => {}
            }
        }
        let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
        Err(format!("exec: {name:?}: {why}"))
    }

    /// Starts a process, once these have run.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn start(&self, prepared: Prepared, hooks: Option<StartHooks>) -> Result<Started, String> {
        let Prepared { process, streams, preserved, creds, fs, image } = prepared;
        let (fds, relay) = self.files(&process, streams, preserved, &creds)?;
        let strings = ExecStrings {
            argv: process.args.iter().map(|arg| arg.clone().into_bytes()).collect(),
            envp: process.env.iter().map(|pair| pair.clone().into_bytes()).collect(),
        };
        let program = FileDescription::from_file(&image.file)
            .map(|file| file.path().name(&self.root).display())
            .unwrap_or_default();
        let observed = strings.argv.clone();
        let open = |path: &[u8]| open_program(&self.vfs(&creds, &fs), path);
        let resource: Arc<dyn TaskResource> = fs.clone();
        let (decide, log) =
            self.profile.as_ref().map_or((None, false), |(profile, log)| (Some(profile), *log));
        let seccomp = profile::seccomp(decide, log)?;
        let mut hooked = Ok(());
        let tty: Option<Arc<Tty>> = relay.as_ref().map(|relay| Arc::clone(relay.tty()));
        let args = InitArgs {
            image,
            strings,
            credentials: Credentials::clone(&creds),
            limits: identity::limits(&process)?,
            fds,
            seccomp,
            slots: vec![(FS.id(), resource)],
            open: &open,
            before_start: Some(Box::new(|group: &Arc<ThreadGroup>| {
                let Some(leader) = group.leader() else { return };
                if let Some(tty) = &tty {
                    tty.give_to(&leader);
                }
                let mut scheduling = leader.scheduling();
                // What has no meaning was refused by `prepare`.
                if schedule::apply(&process, &mut scheduling).is_ok() {
                    leader.set_scheduling(scheduling);
                }
                if let Some(adjustment) = process.oom_score_adj {
                    group.set_oom_score_adj(adjustment);
                }
                if let Some(observer) = self.kernel.observer() {
                    observer.tell(group, &Event::Exec { path: &program, argv: &observed });
                }
                // The process exists, so that others are not the first, and has not taken a step.
                if let Some(hooks) = hooks {
                    hooked = hooks.run(self, &process);
                }
                if hooked.is_err() {
                    self.kernel.kill_all();
                }
            })),
        };
        let name = process.args.first().map_or("", String::as_str);
        let group = self.kernel.spawn_init(args).map_err(|errno| format!("exec {name}: {}", words(errno)))?;
        hooked?;
        if let Some(relay) = &relay {
            self.terminals.lock().push((group.tgid(), Arc::clone(relay)));
            relay.start().map_err(|error| format!("terminal: {error}"))?;
        }
        Ok(Started { group, relay })
    }

    /// The descriptors of a process.
    fn files(
        &self,
        process: &Process,
        mut streams: Vec<OwnedFd>,
        preserved: Vec<OwnedFd>,
        creds: &Arc<Credentials>,
    ) -> Result<(Arc<FdTable>, Option<Arc<Relay>>), String> {
        let cx = OpCx::of_container(creds, &self.kernel);
        let fds = FdTable::new();
        if !process.terminal {
            streams.extend(preserved);
            self.host_files(&cx, &fds, streams)?;
            return Ok((fds, None));
        }
        let relay = Relay::new(&self.devpts, &cx, streams, process.console_size)?;
        let slave = Slave::open(relay.tty(), &cx, O_RDWR | abi::fs::O_NOCTTY).map_err(|e| e.to_string())?;
        let path = self.slave_path(relay.tty(), creds)?;
        let file = FileDescription::new(&cx, slave, path, O_RDWR);
        for _ in 0..3 {
            install(&fds, Arc::clone(&file))?;
        }
        self.host_files(&cx, &fds, preserved)?;
        Ok((fds, Some(relay)))
    }

    /// Gives a process descriptors of the host, in their order.
    fn host_files(&self, cx: &OpCx<'_>, fds: &FdTable, streams: Vec<OwnedFd>) -> Result<(), String> {
        let mut open: Vec<(Arc<HostStream>, Arc<FileDescription>)> = Vec::new();
        for (number, stream) in streams.into_iter().enumerate() {
            if let Some((_, file)) = open.iter().find(|(known, _)| known.is_same(stream.as_fd())) {
                install(fds, Arc::clone(file))?;
                continue;
            }
            let stream = HostStream::new(stream, &self.notifier).map_err(|e| format!("stream: {e}"))?;
            let name = format!("host:[{number}]");
            let file = Arc::clone(&stream).open(cx, &name).map_err(|e| format!("stream: {e}"))?;
            install(fds, Arc::clone(&file))?;
            open.push((stream, file));
        }
        Ok(())
    }

    /// Where a terminal is in the container's tree.
    fn slave_path(&self, tty: &Arc<Tty>, creds: &Arc<Credentials>) -> Result<Path, String> {
        let fs = FsContext::new(Arc::clone(&self.namespace), self.root.clone(), 0);
        let name = format!("/dev/pts/{}", tty.index());
        let found = self.vfs(creds, &fs).resolve(&At::Cwd, name.as_bytes(), LookupFlags::FOLLOW);
        found.map_err(|errno| format!("{name}: {} (is devpts mounted at /dev/pts?)", words(errno)))
    }

    /// The terminal of a process started from outside; the first one's if no process is named.
    pub(crate) fn terminal(&self, pid: Option<i32>) -> Option<Arc<Relay>> {
        let terminals = self.terminals.lock();
        let mut wanted = terminals.iter().filter(|(owner, _)| pid.is_none_or(|pid| pid == *owner));
        wanted.next().map(|(_, relay)| Arc::clone(relay))
    }

    /// Forgets the terminal of a process that has ended.
    pub(crate) fn forget_terminal(&self, pid: i32) {
        let gone: Vec<_> = self.terminals.lock().extract_if(.., |(owner, _)| *owner == pid).collect();
        drop(gone);
    }
}

fn install(fds: &FdTable, file: Arc<FileDescription>) -> Result<(), String> {
    fds.install(file as Arc<dyn File>, false, RLIM_INFINITY).map(drop).map_err(|errno| errno.to_string())
}

/// Reads a profile: what decides, and whether what it forbids is reported.
///
/// # Errors
/// What has no meaning in it.
pub(super) fn profile(profile: &Seccomp) -> Result<(Arc<Profile>, bool), String> {
    let log = profile.flags.iter().any(|flag| flag == "SECCOMP_FILTER_FLAG_LOG");
    Ok((Arc::new(Profile::new(profile)?), log))
}

/// Opens a program, and looks at what its mode gives.
fn open_program(vfs: &Vfs<'_>, path: &[u8]) -> Result<ExecImage, Errno> {
    let file = vfs.open_exec(&At::Cwd, path, LookupFlags::FOLLOW)?;
    let metadata = file.path().inode()?.metadata()?;
    let mut attributes = ExecFile::default();
    if !file.path().mount.has_flags(abi::fs::MS_NOSUID) {
        attributes.setuid = (metadata.mode & 0o4000 != 0).then_some(metadata.uid);
        attributes.setgid = (metadata.mode & 0o2010 == 0o2010).then_some(metadata.gid);
    }
    Ok(ExecImage { file, path: path.to_vec(), attributes })
}

/// An errno in the words of strerror(3), which tools above look for.
pub(super) fn words(errno: Errno) -> String {
    let error = std::io::Error::from_raw_os_error(i32::from(errno.raw()));
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}
