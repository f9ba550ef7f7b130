//! A kernel with a few system calls, and an assembler for what uses them.
mod asm;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::Errno;
use kernel::loader::LoadContext;
use kernel::{
    CloneArgs, CloneFlags, Credentials, CurrentTask, ExecImage, ExecStrings, ExitStatus, FdTable, File,
    InitArgs, Kernel, KernelArgs, Limits, Metadata, Syscalls, Task, WaitArgs, WaitTarget, loader,
};
use memmap::{Backing, HostMemory, IoDst, Mappable, MappingKey, MemoryFile, MemoryManager, MmapFile};
use sync::{HostClock, LockClass, Mutex, PollEvents};

pub(crate) use asm::Asm;

/// A file of the host.
#[derive(Debug)]
struct Program {
    bytes: Vec<u8>,
    host: Arc<HostMemory>,
}

impl Mappable for Program {
    fn translate(&self, offset: u64, len: u64, write: bool) -> Result<Backing, Errno> {
        assert!(!write, "programs are mapped private");
        let pages = (self.bytes.len() as u64).next_multiple_of(4096);
        if offset >= pages {
            return Err(Errno::EFAULT);
        }
        Ok(Backing::Host { file: Arc::clone(&self.host), offset, len: len.min(pages - offset) })
    }
    fn add_mapping(&self, _: MappingKey) {}
    fn remove_mapping(&self, _: &MappingKey) {}
    fn identity(&self) -> (u64, u64, Vec<u8>) {
        (0, 0, b"/program".to_vec())
    }
}

#[derive(Debug)]
struct ProgramFile(Arc<Program>);

impl File for ProgramFile {
    fn pread(&self, _: &Task, dst: &mut IoDst<'_>, offset: i64) -> Result<usize, Errno> {
        let from = usize::try_from(offset).map_err(|_negative| Errno::EINVAL)?;
        dst.write(self.0.bytes.get(from..).unwrap_or_default())
    }
    fn mappable(&self, _: &Task, _: u32, _: u32) -> Result<MmapFile, Errno> {
        let mappable = Arc::clone(&self.0) as Arc<dyn Mappable>;
        Ok(MmapFile { mappable, offset: 0, may_write: false, may_exec: true })
    }
    fn stat(&self, _: &Task) -> Result<Metadata, Errno> {
        Ok(Metadata::default())
    }
    fn status_flags(&self) -> u32 {
        0
    }
}

fn image(program: &Asm) -> ExecImage {
    image_of(program.elf())
}

fn image_of(bytes: Vec<u8>) -> ExecImage {
    let (reader, path) = {
        let path = std::env::temp_dir().join(format!("program-{}-{:p}", std::process::id(), bytes.as_ptr()));
        std::fs::File::create(&path).and_then(|mut f| f.write_all(&bytes)).expect("a place for files");
        (std::fs::File::open(&path).expect("it was just made"), path)
    };
    std::fs::remove_file(path).expect("it was just made");
    let host = Arc::new(HostMemory { fd: OwnedFd::from(reader), writable: false });
    let file = Arc::new(ProgramFile(Arc::new(Program { bytes, host })));
    ExecImage { file, path: b"/program".to_vec(), attributes: kernel::ExecFile::default() }
}

/// A few system calls.
struct Few {
    next: Mutex<Option<Asm>>,
    /// Files that are loaded one after the other, and not run.
    files: Mutex<Vec<Vec<u8>>>,
}

impl Few {
    fn answer(&self, cur: &mut CurrentTask) -> Result<usize, Errno> {
        use abi::sysno::nr;
        let (number, args) = (cur.regs().syscall_number(), cur.regs().syscall_args());
        let code = i32::from_ne_bytes(args[0].to_ne_bytes()[..4].try_into().expect("four"));
        match number {
            nr::exit => cur.exit(code),
            nr::exit_group => cur.exit_group(ExitStatus::Exited(code)),
            nr::fork => return clone(cur, CloneFlags::default()),
            nr::vfork => return clone(cur, CloneFlags::VM | CloneFlags::VFORK),
            nr::clone => {
                return clone(
                    cur,
                    CloneFlags::VM
                        | CloneFlags::SIGHAND
                        | CloneFlags::THREAD
                        | CloneFlags::FILES
                        | CloneFlags::FS,
                );
            }
            nr::wait4 => return wait(cur, args[1]),
            nr::pause => loop {
                if cur.block(None) == kernel::BlockResult::Interrupted {
                    return Err(Errno::ERESTARTNOHAND);
                }
            },
            nr::execve => {
                let program = self.next.lock().take().ok_or(Errno::ENOENT)?;
                cur.exec(image(&program), ExecStrings::default(), &|_| Err(Errno::ENOENT))?;
            }
            nr::uselib => return Ok(self.load_files(cur)),
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Loads the files; tells how many could be.
    fn load_files(&self, cur: &CurrentTask) -> usize {
        let files = std::mem::take(&mut *self.files.lock());
        let credentials = cur.credentials();
        let load = |bytes: &Vec<u8>| {
            let kernel = cur.kernel();
            let mm = MemoryManager::new(Arc::clone(kernel.memory_file()), Arc::clone(kernel.platform()));
            let cx = LoadContext {
                task: cur,
                mm: &mm.expect("there is room for one more"),
                // An interpreter that is as broken.
                open: &|_| Ok(image_of(bytes.clone())),
                credentials: &credentials,
                host: *kernel.host(),
                stack_limit: 8 << 20,
                plain: false,
            };
            loader::load(&cx, image_of(bytes.clone()), ExecStrings::default()).is_ok()
        };
        files.iter().filter(|bytes| load(bytes)).count()
    }
}

impl Syscalls for Few {
    fn call(&self, cur: &mut CurrentTask) {
        let result = self.answer(cur).map_or_else(Errno::as_return, |n| n as u64);
        cur.regs_mut().set_syscall_return(result);
    }
}

fn clone(cur: &mut CurrentTask, flags: CloneFlags) -> Result<usize, Errno> {
    let exit_signal = if flags.contains(CloneFlags::THREAD) { 0 } else { 17 };
    let tid = cur.clone_task(CloneArgs { flags, exit_signal, ..CloneArgs::default() })?;
    Ok(usize::try_from(tid).expect("ids are positive"))
}

fn wait(cur: &mut CurrentTask, status: u64) -> Result<usize, Errno> {
    let args = WaitArgs { target: WaitTarget::Any, options: abi::sched::WEXITED };
    let group = Arc::clone(cur.group());
    let key = group.child_events().register(PollEvents::IN, Arc::clone(cur.waiter()) as Arc<dyn sync::Wake>);
    let found = loop {
        match cur.wait(&args) {
            Ok(Some(found)) => break Ok(found),
            Err(error) => break Err(error),
            Ok(None) if cur.block(None) == kernel::BlockResult::Interrupted => break Err(Errno::ERESTARTSYS),
            Ok(None) => {}
        }
    };
    group.child_events().unregister(key);
    let found = found?;
    cur.mm().ok_or(Errno::EFAULT)?.write_obj(status, &found.raw)?;
    Ok(usize::try_from(found.pid).expect("ids are positive"))
}

/// The platform that all worlds of this process share; it ends with the last of them, and its processes with it.
fn platform() -> Arc<dyn platform::Platform> {
    static SHARED: Mutex<Option<Weak<dyn platform::Platform>>> = Mutex::new(LockClass::Leaf, None);
    let mut shared = SHARED.lock();
    shared.as_ref().and_then(Weak::upgrade).unwrap_or_else(|| {
        let platform = platform::ptrace::Ptrace::new().expect("ptrace works here");
        *shared = Some(Arc::downgrade(&platform));
        platform
    })
}

/// A kernel without processes.
pub(crate) struct World {
    kernel: Arc<Kernel>,
    few: Arc<Few>,
}

impl World {
    pub(crate) fn new() -> Self {
        let platform = platform();
        let few = Arc::new(Few {
            next: Mutex::new(LockClass::Leaf, None),
            files: Mutex::new(LockClass::Leaf, Vec::new()),
        });
        let kernel = Kernel::new(KernelArgs {
            memory_file: MemoryFile::new().expect("memfd_create works"),
            platform,
            clock: Arc::new(HostClock::new()),
            host: kernel::HostAuxv::default(),
            hostname: b"world".to_vec(),
            cpus: 2,
            random: Box::new(|into| into.fill(4)),
        });
        kernel.set_syscalls(Arc::clone(&few) as Arc<dyn Syscalls>);
        Self { kernel, few }
    }

    pub(crate) fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Says what execve(2) executes next.
    pub(crate) fn add_program(&self, program: Asm) {
        *self.few.next.lock() = Some(program);
    }

    /// Loads files as programs, one after the other; tells how many could be, up to 255.
    pub(crate) fn load(&self, files: Vec<Vec<u8>>) -> ExitStatus {
        *self.few.files.lock() = files;
        self.run(&Asm::new().load_files().exit_eax())
    }

    /// Runs a program as init.
    pub(crate) fn run(&self, program: &Asm) -> ExitStatus {
        let group = self.kernel.spawn_init(InitArgs {
            image: image(program),
            strings: ExecStrings { argv: vec![b"/program".to_vec()], envp: Vec::new() },
            credentials: Credentials::root(),
            limits: Limits::default(),
            fds: FdTable::new(),
            seccomp: kernel::seccomp::Seccomp::Disabled,
            slots: Vec::new(),
            open: &|_| Err(Errno::ENOENT),
            before_start: None,
        });
        self.kernel.wait_exit(&group.expect("it starts"))
    }
}
