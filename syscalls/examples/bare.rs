//! Runs a static program on the `ptrace` platform without any file system, with the caller's standard output:
//! `cargo run -p syscalls --example bare -- PROGRAM [ARG]...`. What it needs beyond processes and memory fails.
#![expect(clippy::print_stderr, reason = "a command")]
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use kernel::{
    Credentials, ExecFile, ExecImage, ExecStrings, FdTable, File, HostAuxv, InitArgs, Kernel, KernelArgs,
    Limits, Metadata, Task,
};
use memmap::{Backing, HostMemory, IoDst, IoSrc, Mappable, MappingKey, MemoryFile, MmapFile};
use sync::{HostClock, LockClass, Mutex};

/// The program.
#[derive(Debug)]
struct Program {
    bytes: Vec<u8>,
    host: Arc<HostMemory>,
}

impl Mappable for Program {
    fn translate(&self, offset: u64, len: u64, _write: bool) -> Result<Backing, Errno> {
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
        Ok(Metadata { mode: 0o100_755, size: self.0.bytes.len() as u64, ..Metadata::default() })
    }
    fn status_flags(&self) -> u32 {
        0
    }
}

/// The caller's standard error.
#[derive(Debug)]
struct Terminal;

impl File for Terminal {
    fn read(&self, _: &Task, _: &mut IoDst<'_>) -> Result<usize, Errno> {
        Ok(0)
    }
    fn write(&self, _: &Task, src: &mut IoSrc<'_>) -> Result<usize, Errno> {
        src.read_into(usize::MAX, &mut |bytes| std::io::stderr().write(bytes).map_err(|_host| Errno::EIO))
    }
    fn stat(&self, _: &Task) -> Result<Metadata, Errno> {
        Ok(Metadata { mode: 0o020_666, ..Metadata::default() })
    }
    fn status_flags(&self) -> u32 {
        2
    }
}

fn open(path: &str) -> std::io::Result<ExecImage> {
    let host = Arc::new(HostMemory { fd: OwnedFd::from(fs::File::open(path)?), writable: false });
    let file = Arc::new(ProgramFile(Arc::new(Program { bytes: fs::read(path)?, host })));
    Ok(ExecImage { file, path: path.as_bytes().to_vec(), attributes: ExecFile::default() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = args.first() else {
        eprintln!("usage: bare PROGRAM [ARG]...");
        std::process::exit(2);
    };
    let random = Mutex::new(LockClass::Leaf, fs::File::open("/dev/urandom")?);
    let host = platform::host_auxv();
    let kernel = Kernel::new(KernelArgs {
        memory_file: MemoryFile::new()?,
        platform: platform::ptrace::Ptrace::new()?,
        clock: Arc::new(HostClock::new()),
        host: HostAuxv {
            hwcap: host.hwcap,
            hwcap2: host.hwcap2,
            min_signal_stack: host.min_signal_stack,
            ..HostAuxv::default()
        },
        hostname: b"bare".to_vec(),
        cpus: 2,
        random: Box::new(move |into| random.lock().read_exact(into).expect("it has no end")),
    });
    syscalls::install(&kernel, syscalls::Options::default());
    let fds = FdTable::new();
    for _ in 0..3 {
        fds.install(Arc::new(Terminal), false, 1024)?;
    }
    let strings =
        ExecStrings { argv: args.iter().map(|a| a.as_bytes().to_vec()).collect(), envp: Vec::new() };
    let group = kernel.spawn_init(InitArgs {
        image: open(path)?,
        strings,
        credentials: Credentials::root(),
        limits: Limits::default(),
        fds,
        seccomp: kernel::seccomp::Seccomp::Disabled,
        slots: Vec::new(),
        open: &|_| Err(Errno::ENOENT),
        before_start: None,
    })?;
    let status = kernel.wait_exit(&group);
    eprintln!("{status:?}");
    for (what, count) in kernel.unsupported_counts() {
        eprintln!("not supported: {what} ({count} times)");
    }
    Ok(())
}
