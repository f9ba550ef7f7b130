//! Loading programs, execve(2): scripts, ELF files, the initial stack.
//!
//! Everything is loaded into a fresh memory manager, so that a program that cannot be loaded leaves the caller as it was.

mod elf;
mod script;
mod stack;

use std::fmt;
use std::sync::Arc;

use abi::Errno;
use memmap::{IoDst, MemoryManager};

use crate::{Credentials, ExecFile, File, Task};

use stack::Ids;

/// Page size of the guest.
const PAGE: u64 = 4096;
/// How much of a file decides its format, Linux `BINPRM_BUF_SIZE`.
const HEAD: usize = 256;
/// How many interpreters of interpreters there may be, Linux `exec_binprm`.
const MAX_SCRIPTS: usize = 5;

/// A file to execute, opened and checked for permission.
#[derive(Clone, Debug)]
pub struct ExecImage {
    /// The file, readable.
    pub file: Arc<dyn File>,
    /// The path a script's interpreter gets to see and `AT_EXECFN` names.
    pub path: Vec<u8>,
    /// What its set-user-id bits and capabilities give, as far as its mount lets them.
    pub attributes: ExecFile,
}

/// What a program is started with.
#[derive(Clone, Debug, Default)]
pub struct ExecStrings {
    /// The arguments, without terminators.
    pub argv: Vec<Vec<u8>>,
    /// The environment, without terminators.
    pub envp: Vec<Vec<u8>>,
}

/// What the host's processor and the platform offer to programs through the auxiliary vector.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostAuxv {
    /// `AT_HWCAP`.
    pub hwcap: u64,
    /// `AT_HWCAP2`.
    pub hwcap2: u64,
    /// `AT_MINSIGSTKSZ`.
    pub min_signal_stack: u64,
    /// Where the platform shows every guest a vDSO.
    pub vdso: Option<u64>,
}

/// Opens the interpreter that a script or an ELF file names.
pub type OpenInterpreter<'a> = &'a dyn Fn(&[u8]) -> Result<ExecImage, Errno>;

/// What loading takes beside the file.
#[derive(Clone, Copy)]
pub struct LoadContext<'a> {
    /// The task that reads the files.
    pub task: &'a Task,
    /// The empty memory to fill.
    pub mm: &'a Arc<MemoryManager>,
    /// Opens interpreters, with the caller's credentials and the checks of execve(2).
    pub open: OpenInterpreter<'a>,
    /// Who executes.
    pub credentials: &'a Credentials,
    /// The host's part of the auxiliary vector.
    pub host: HostAuxv,
    /// `RLIMIT_STACK`, in bytes.
    pub stack_limit: u64,
    /// Whether the file's attributes give nothing.
    pub plain: bool,
}

impl fmt::Debug for LoadContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadContext").field("task", &self.task.tid()).finish_non_exhaustive()
    }
}

/// A program ready to run.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// The first instruction: the interpreter's, where there is one.
    pub entry: u64,
    /// The initial stack pointer, at `argc`.
    pub stack_pointer: u64,
    /// The file that was mapped as the program (the interpreter of a script), which `/proc/PID/exe` shows.
    pub executable: ExecImage,
    /// Who the program is.
    pub credentials: Credentials,
    /// Who it is without what the file's attributes give.
    pub plain_credentials: Credentials,
    /// Whether the program gained privileges (`AT_SECURE`).
    pub secure: bool,
}

/// Loads `image` into `cx.mm`.
///
/// # Errors
/// Those of execve(2): `ENOEXEC` for what is no program, `ELIBBAD` for a broken interpreter, `E2BIG` for too many strings,
/// `ELOOP` for too deep scripts, `ENOMEM`, and those of opening and reading the files.
pub fn load(cx: &LoadContext<'_>, image: ExecImage, strings: ExecStrings) -> Result<LoadedImage, Errno> {
    let filename = image.path.clone();
    let (image, head, strings) = resolve(cx, image, strings)?;
    let (plain_credentials, plain_secure) = cx.credentials.exec_transform(&ExecFile::default())?;
    let (credentials, secure) = if cx.plain {
        (plain_credentials.clone(), plain_secure)
    } else {
        cx.credentials.exec_transform(&image.attributes)?
    };
    let program = elf::load_program(cx, &image, &head)?;
    let ids = Ids::of(&credentials, secure);
    let stack_pointer = stack::build(cx, &program, ids, &filename, &strings)?;
    cx.mm.show_program();
    Ok(LoadedImage {
        entry: program.start,
        stack_pointer,
        executable: image,
        credentials,
        plain_credentials,
        secure,
    })
}

/// The first bytes of the file that a program of any format begins with; what the file lacks is zero.
fn read_head(task: &Task, image: &ExecImage) -> Result<[u8; HEAD], Errno> {
    let mut head = [0; HEAD];
    read_at(task, &image.file, 0, &mut head)?;
    Ok(head)
}

/// Reads up to `buf.len()` bytes; tells how many there were.
fn read_at(task: &Task, file: &Arc<dyn File>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let at = offset.checked_add(done as u64).and_then(|o| i64::try_from(o).ok()).ok_or(Errno::EINVAL)?;
        match file.pread(task, &mut IoDst::kernel(rest), at)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Follows `#!` lines to the file that is to be mapped.
fn resolve(
    cx: &LoadContext<'_>,
    mut image: ExecImage,
    mut strings: ExecStrings,
) -> Result<(ExecImage, [u8; HEAD], ExecStrings), Errno> {
    for _ in 0..=MAX_SCRIPTS {
        let head = read_head(cx.task, &image)?;
        let Some(line) = script::parse(&head)? else { return Ok((image, head, strings)) };
        let old = std::mem::take(&mut strings.argv);
        strings.argv.push(line.interpreter.to_vec());
        strings.argv.extend(line.argument.map(<[u8]>::to_vec));
        strings.argv.push(image.path.clone());
        strings.argv.extend(old.into_iter().skip(1));
        image = (cx.open)(line.interpreter)?;
    }
    Err(Errno::ELOOP)
}
