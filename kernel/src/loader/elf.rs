//! ELF programs, Linux `fs/binfmt_elf.c:load_elf_binary`.
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use abi::elf::{self, Elf64Ehdr, Elf64Phdr};
use abi::mman;
use memmap::{Mappable, MmLayout, MmapArgs, MmapFile};
use zerocopy::FromBytes;

use super::{ExecImage, HEAD, LoadContext, PAGE, read_at, read_head};

/// All program headers of a file may take up to this, Linux `load_elf_phdrs`.
const MAX_PHDRS: usize = 65_536;
/// Where position-independent programs go, Linux `ELF_ET_DYN_BASE`: two thirds up.
const DYN_BASE: u64 = 0x5555_5555_4000;
/// How far they are spread above it, in pages.
const DYN_SPREAD: u64 = 1 << 28;
/// How far the heap is spread above the program, in bytes (Linux `arch_randomize_brk`).
const BRK_SPREAD: u64 = 0x0200_0000;

/// A program that is mapped, with its interpreter.
#[derive(Debug)]
pub(super) struct Program {
    /// Where execution begins.
    pub start: u64,
    /// The program's own entry point.
    pub entry: u64,
    /// Where its program headers are in memory.
    pub phdr: u64,
    /// The size of one.
    pub phent: u64,
    /// How many there are.
    pub phnum: u64,
    /// Where the interpreter was loaded, or 0.
    pub interpreter_base: u64,
    /// Whether the program wants to execute code on its stack.
    pub executable_stack: bool,
    /// What is known of the memory layout so far.
    pub layout: MmLayout,
}

/// A file's headers, checked.
struct Headers {
    ehdr: Elf64Ehdr,
    phdrs: Vec<Elf64Phdr>,
}

impl Headers {
    fn read(cx: &LoadContext<'_>, image: &ExecImage, head: &[u8; HEAD]) -> Result<Self, Errno> {
        let (ehdr, _) = Elf64Ehdr::read_from_prefix(head).map_err(|_short| Errno::ENOEXEC)?;
        let ident = [elf::ELFCLASS64, elf::ELFDATA2LSB, elf::EV_CURRENT];
        let known = ehdr.e_ident.starts_with(&elf::ELFMAG)
            && ehdr.e_ident.get(4..7) == Some(&ident)
            && ehdr.e_machine == elf::EM_X86_64
            && matches!(ehdr.e_type, elf::ET_EXEC | elf::ET_DYN);
        let size = usize::from(ehdr.e_phnum) * size_of::<Elf64Phdr>();
        let sound =
            usize::from(ehdr.e_phentsize) == size_of::<Elf64Phdr>() && (1..=MAX_PHDRS).contains(&size);
        if !known || !sound {
            return Err(Errno::ENOEXEC);
        }
        let mut bytes = vec![0; size];
        if read_at(cx.task, &image.file, ehdr.e_phoff, &mut bytes)? != size {
            return Err(Errno::ENOEXEC);
        }
        let phdrs = bytes.chunks_exact(size_of::<Elf64Phdr>());
        let phdrs = phdrs.filter_map(|b| Elf64Phdr::read_from_bytes(b).ok()).collect();
        Ok(Self { ehdr, phdrs })
    }

    fn loads(&self) -> impl DoubleEndedIterator<Item = &Elf64Phdr> {
        self.phdrs.iter().filter(|p| p.p_type == elf::PT_LOAD)
    }

    /// The pages that the segments take, before any bias.
    fn span(&self) -> Result<Range<u64>, Errno> {
        let mut span: Option<Range<u64>> = None;
        for p in self.loads() {
            let end = p.p_vaddr.checked_add(p.p_memsz).and_then(page_up).ok_or(Errno::EINVAL)?;
            if p.p_filesz > p.p_memsz || p.p_memsz > 1 << 47 || end > 1 << 47 {
                return Err(Errno::EINVAL);
            }
            let start = page_down(p.p_vaddr);
            span = Some(span.map_or(start..end, |s| s.start.min(start)..s.end.max(end)));
        }
        span.filter(|s| !s.is_empty()).ok_or(Errno::ENOEXEC)
    }

    /// The largest alignment that a segment asks for.
    fn alignment(&self) -> u64 {
        let wanted = self.loads().map(|p| p.p_align).filter(|a| a.is_power_of_two() && *a <= 1 << 30);
        wanted.max().unwrap_or(PAGE).max(PAGE)
    }
}

fn page_down(at: u64) -> u64 {
    at & !(PAGE - 1)
}

fn page_up(at: u64) -> Option<u64> {
    at.checked_next_multiple_of(PAGE)
}

/// Maps the program and the interpreter it names.
pub(super) fn load_program(
    cx: &LoadContext<'_>,
    image: &ExecImage,
    head: &[u8; HEAD],
) -> Result<Program, Errno> {
    let headers = Headers::read(cx, image, head)?;
    let interpreter = match headers.phdrs.iter().find(|p| p.p_type == elf::PT_INTERP) {
        Some(phdr) => Some(read_interpreter(cx, image, phdr)?),
        None => None,
    };
    let stack_flags = headers.phdrs.iter().find(|p| p.p_type == elf::PT_GNU_STACK).map(|p| p.p_flags);
    let span = headers.span()?;
    let bias = if headers.ehdr.e_type == elf::ET_DYN {
        let at = DYN_BASE + cx.task.kernel().random_below(DYN_SPREAD) * PAGE;
        (at & !(headers.alignment() - 1)).wrapping_sub(span.start)
    } else {
        0
    };
    map_segments(cx, image, &headers, bias, true)?;
    let end = span.end.wrapping_add(bias);
    let brk = page_up(end + cx.task.kernel().random_below(BRK_SPREAD)).ok_or(Errno::ENOMEM)?;
    cx.mm.set_brk_start(brk);
    let entry = headers.ehdr.e_entry.wrapping_add(bias);
    let (interpreter_base, start) = match interpreter {
        None => (0, entry),
        Some((image, headers)) => {
            let base = place_interpreter(cx, &image, &headers)?;
            (base, headers.ehdr.e_entry.wrapping_add(base))
        }
    };
    Ok(Program {
        start,
        entry,
        phdr: phdr_address(&headers).wrapping_add(bias),
        phent: u64::from(headers.ehdr.e_phentsize),
        phnum: u64::from(headers.ehdr.e_phnum),
        interpreter_base,
        executable_stack: stack_flags.is_some_and(|f| f & elf::PF_X != 0),
        layout: layout(&headers, bias, brk),
    })
}

/// Where a loaded segment shows the program headers.
fn phdr_address(headers: &Headers) -> u64 {
    let at = headers.ehdr.e_phoff;
    let shown = headers.loads().find(|p| p.p_offset <= at && at - p.p_offset < p.p_filesz);
    shown.map_or(0, |p| p.p_vaddr.wrapping_add(at - p.p_offset))
}

fn layout(headers: &Headers, bias: u64, brk: u64) -> MmLayout {
    let mut layout = MmLayout { start_brk: brk, start_code: u64::MAX, ..MmLayout::default() };
    for p in headers.loads() {
        let (start, end) =
            (p.p_vaddr.wrapping_add(bias), p.p_vaddr.wrapping_add(bias).wrapping_add(p.p_filesz));
        layout.start_code = layout.start_code.min(start);
        layout.start_data = layout.start_data.max(start);
        if p.p_flags & elf::PF_X != 0 {
            layout.end_code = layout.end_code.max(end);
        }
        layout.end_data = layout.end_data.max(end);
    }
    layout
}

/// Opens the interpreter and reads its headers.
fn read_interpreter(
    cx: &LoadContext<'_>,
    image: &ExecImage,
    phdr: &Elf64Phdr,
) -> Result<(ExecImage, Headers), Errno> {
    let size =
        usize::try_from(phdr.p_filesz).ok().filter(|s| (2..=4096).contains(s)).ok_or(Errno::ENOEXEC)?;
    let mut path = vec![0; size];
    if read_at(cx.task, &image.file, phdr.p_offset, &mut path)? != size || path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let path = path.split(|b| *b == 0).next().unwrap_or_default();
    let interpreter = (cx.open)(path)?;
    let head = read_head(cx.task, &interpreter)?;
    let headers = Headers::read(cx, &interpreter, &head)
        .map_err(|e| if e == Errno::ENOEXEC { Errno::ELIBBAD } else { e })?;
    Ok((interpreter, headers))
}

/// Maps the interpreter where there is room; gives its bias.
fn place_interpreter(cx: &LoadContext<'_>, image: &ExecImage, headers: &Headers) -> Result<u64, Errno> {
    let span = headers.span()?;
    if headers.ehdr.e_type == elf::ET_EXEC {
        map_segments(cx, image, headers, 0, true)?;
        return Ok(0);
    }
    let len = span.end - span.start;
    let align = headers.alignment();
    // Room for the span at any alignment; what stays over goes back.
    let room = len.checked_add(align - PAGE).ok_or(Errno::ENOMEM)?;
    let flags = mman::MAP_PRIVATE | mman::MAP_ANONYMOUS | mman::MAP_NORESERVE;
    let at =
        cx.mm.mmap(MmapArgs { addr: 0, len: room, prot: mman::PROT_NONE, flags, ..MmapArgs::default() })?;
    let base = at.checked_next_multiple_of(align).ok_or(Errno::ENOMEM)?;
    for (start, end) in [(at, base), (base + len, at + room)] {
        if end > start {
            cx.mm.munmap(start, end - start)?;
        }
    }
    let bias = base.wrapping_sub(span.start);
    map_segments(cx, image, headers, bias, false)?;
    Ok(bias)
}

fn map_segments(
    cx: &LoadContext<'_>,
    image: &ExecImage,
    headers: &Headers,
    bias: u64,
    must_be_free: bool,
) -> Result<(), Errno> {
    let mappable =
        image.file.mappable(cx.task, mman::PROT_READ | mman::PROT_EXEC, mman::MAP_PRIVATE)?.mappable;
    let fixed = if must_be_free { mman::MAP_FIXED_NOREPLACE } else { mman::MAP_FIXED };
    for p in headers.loads().filter(|p| p.p_memsz > 0) {
        map_segment(cx, &mappable, p, bias, fixed)
            .map_err(|e| if e == Errno::EEXIST { Errno::ENOMEM } else { e })?;
    }
    Ok(())
}

/// Maps one segment: its part of the file, then memory that is zero.
fn map_segment(
    cx: &LoadContext<'_>,
    mappable: &Arc<dyn Mappable>,
    phdr: &Elf64Phdr,
    bias: u64,
    fixed: u32,
) -> Result<(), Errno> {
    let prot = [(elf::PF_R, mman::PROT_READ), (elf::PF_W, mman::PROT_WRITE), (elf::PF_X, mman::PROT_EXEC)];
    let prot = prot.iter().filter(|(flag, _)| phdr.p_flags & flag != 0).fold(0, |all, (_, prot)| all | prot);
    let vaddr = phdr.p_vaddr.wrapping_add(bias);
    let in_page = vaddr % PAGE;
    if phdr.p_offset % PAGE != in_page {
        return Err(Errno::EINVAL);
    }
    let start = vaddr - in_page;
    let file_end = vaddr + phdr.p_filesz;
    let end = page_up(vaddr + phdr.p_memsz).ok_or(Errno::ENOMEM)?;
    let mut zero_start = start;
    if phdr.p_filesz > 0 {
        zero_start = page_up(file_end).ok_or(Errno::ENOMEM)?;
        let file = MmapFile {
            mappable: Arc::clone(mappable),
            offset: phdr.p_offset - in_page,
            may_write: true,
            may_exec: true,
        };
        cx.mm.mmap(MmapArgs {
            addr: start,
            len: zero_start - start,
            prot,
            flags: mman::MAP_PRIVATE | fixed,
            file: Some(file),
            ..MmapArgs::default()
        })?;
        if phdr.p_memsz > phdr.p_filesz && phdr.p_flags & elf::PF_W != 0 {
            cx.mm.zero_bytes(file_end, zero_start - file_end)?;
        }
    }
    if end > zero_start {
        cx.mm.mmap(MmapArgs {
            addr: zero_start,
            len: end - zero_start,
            prot,
            flags: mman::MAP_PRIVATE | mman::MAP_ANONYMOUS | fixed,
            ..MmapArgs::default()
        })?;
    }
    Ok(())
}
