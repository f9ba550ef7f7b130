//! `/proc/PID/{maps,smaps,smaps_rollup,auxv,cmdline,environ,limits,io}`, proc(5).
use std::fmt::Write;
use std::ops::Range;

use abi::mman::{PROT_EXEC, PROT_READ, PROT_WRITE};
use kernel::{RLIM_INFINITY, Resource, Task, ThreadGroup};
use memmap::{MemoryManager, VmaInfo};

/// The column at which names begin.
const NAME_COLUMN: usize = 73;
/// How much of a command line or environment is shown at most.
const STRINGS_LIMIT: u64 = 6 << 20;

fn maps_line(vma: &VmaInfo, out: &mut Vec<u8>) {
    let prot = [(PROT_READ, 'r'), (PROT_WRITE, 'w'), (PROT_EXEC, 'x')];
    let prot: String = prot.iter().map(|(bit, c)| if vma.prot & bit == 0 { '-' } else { *c }).collect();
    let shared = if vma.shared { 's' } else { 'p' };
    let major = vma.dev >> 8 & 0xfff;
    let minor = vma.dev & 0xff | vma.dev >> 12 & 0xfff00;
    let range = &vma.range;
    let mut line = format!(
        "{:08x}-{:08x} {prot}{shared} {:08x} {major:02x}:{minor:02x} {} ",
        range.start, range.end, vma.offset, vma.ino
    );
    if !vma.name.is_empty() {
        while line.len() < NAME_COLUMN {
            line.push(' ');
        }
    }
    out.extend(line.as_bytes());
    for byte in &vma.name {
        // A newline in a name would look like another mapping.
        if *byte == b'\n' { out.extend(b"\\012") } else { out.push(*byte) }
    }
    out.push(b'\n');
}

/// The mappings that the platform makes in every memory: the vDSO and its data. They lie above all others.
fn platform_vmas(task: &Task) -> Vec<VmaInfo> {
    let platform = task.kernel().platform();
    let code = platform.vdso();
    let part = |range: Range<u64>| {
        let is_code = Some(range.start) == code;
        VmaInfo {
            prot: if is_code { PROT_READ | PROT_EXEC } else { PROT_READ },
            name: if is_code { b"[vdso]".to_vec() } else { b"[vvar]".to_vec() },
            range,
            ..VmaInfo::default()
        }
    };
    platform.vdso_parts().into_iter().map(part).collect()
}

/// `maps`.
pub(super) fn maps(task: &Task, mm: &MemoryManager) -> Vec<u8> {
    let mut out = Vec::new();
    for vma in mm.vmas().iter().chain(&platform_vmas(task)) {
        maps_line(vma, &mut out);
    }
    out
}

fn smaps_sizes(vma: &VmaInfo) -> [(&'static str, u64); 22] {
    let writable = vma.prot & PROT_WRITE != 0;
    let (clean, dirty) = if writable || vma.anonymous > 0 {
        (vma.rss - vma.anonymous.min(vma.rss), vma.anonymous)
    } else {
        (vma.rss, 0)
    };
    let (shared_clean, shared_dirty) = if vma.shared { (clean, dirty) } else { (0, 0) };
    let (private_clean, private_dirty) = if vma.shared { (0, 0) } else { (clean, dirty) };
    [
        ("Size", vma.range.end - vma.range.start),
        ("KernelPageSize", 4096),
        ("MMUPageSize", 4096),
        ("Rss", vma.rss),
        ("Pss", vma.rss),
        ("Pss_Dirty", dirty),
        ("Shared_Clean", shared_clean),
        ("Shared_Dirty", shared_dirty),
        ("Private_Clean", private_clean),
        ("Private_Dirty", private_dirty),
        ("Referenced", vma.rss),
        ("Anonymous", vma.anonymous),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", vma.locked),
    ]
}

/// `smaps`.
pub(super) fn smaps(mm: &MemoryManager) -> Vec<u8> {
    let mut out = Vec::new();
    for vma in mm.vmas() {
        maps_line(&vma, &mut out);
        for (name, bytes) in smaps_sizes(&vma) {
            out.extend(format!("{:<15} {:8} kB\n", format!("{name}:"), bytes / 1024).as_bytes());
        }
        out.extend(b"THPeligible:           0\nVmFlags:");
        for flag in &vma.vm_flags {
            out.extend(format!(" {flag}").as_bytes());
        }
        out.extend(b" \n");
    }
    out
}

/// `smaps_rollup`: the sums of `smaps`, without the sizes.
pub(super) fn smaps_rollup(mm: &MemoryManager) -> Vec<u8> {
    let vmas = mm.vmas();
    let start = vmas.first().map_or(0, |v| v.range.start);
    let end = vmas.last().map_or(0, |v| v.range.end);
    let mut out = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ");
    while out.len() < NAME_COLUMN {
        out.push(' ');
    }
    out.push_str("[rollup]\n");
    let all: Vec<_> = vmas.iter().map(smaps_sizes).collect();
    for at in 3..22 {
        let name = all.first().and_then(|s| s.get(at)).map_or("", |s| s.0);
        let bytes: u64 = all.iter().filter_map(|s| s.get(at)).map(|s| s.1).sum();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:<15} {:8} kB", format!("{name}:"), bytes / 1024);
    }
    out.into_bytes()
}

/// The bytes between two addresses of the program, as far as they can be read.
fn strings(mm: &MemoryManager, start: u64, end: u64) -> Vec<u8> {
    let len = end.saturating_sub(start).min(STRINGS_LIMIT);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = mm.read_bytes_force(start, &mut bytes).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// `cmdline`, each argument with a zero byte behind it. A program that wrote over its arguments beyond their end is shown up to the first zero byte
/// (Linux `get_mm_cmdline`).
#[must_use]
pub fn cmdline(mm: &MemoryManager) -> Vec<u8> {
    let layout = mm.layout();
    let mut bytes = strings(mm, layout.arg_start, layout.arg_end);
    if bytes.last().is_some_and(|b| *b != 0) {
        let more = strings(mm, layout.arg_end, layout.env_end);
        bytes.extend(more);
        let end = bytes.iter().position(|b| *b == 0).map_or(bytes.len(), |at| at + 1);
        bytes.truncate(end);
    }
    bytes
}

/// `environ`.
pub(super) fn environ(mm: &MemoryManager) -> Vec<u8> {
    let layout = mm.layout();
    strings(mm, layout.env_start, layout.env_end)
}

/// `auxv`.
pub(super) fn auxv(mm: &MemoryManager) -> Vec<u8> {
    mm.auxv().iter().flat_map(|w| w.to_ne_bytes()).collect()
}

const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

/// `limits`.
pub(super) fn limits(group: &ThreadGroup) -> Vec<u8> {
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |n: u64| if n == RLIM_INFINITY { "unlimited".to_owned() } else { n.to_string() };
    for (number, (name, unit)) in (0..).zip(LIMITS) {
        let Some(resource) = Resource::new(number) else { continue };
        let (soft, hard) = group.limits().get(resource);
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", show(soft), show(hard));
    }
    out.into_bytes()
}

/// `io`: not counted yet, hence zeros as for a process that did none.
pub(super) fn io(_: &Task) -> Vec<u8> {
    let names = ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
    names.iter().flat_map(|n| format!("{n}: 0\n").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_what_linux_writes() {
        let vma = VmaInfo {
            range: 0x5555_5555_4000..0x5555_5555_8000,
            prot: PROT_READ | PROT_EXEC,
            shared: false,
            offset: 0x4000,
            dev: 0xfe00,
            ino: 42,
            name: b"/bin/a b\nc".to_vec(),
            rss: 0,
            anonymous: 0,
            locked: 0,
            vm_flags: Vec::new(),
        };
        let mut out = Vec::new();
        maps_line(&vma, &mut out);
        let expected = format!("{:<73}/bin/a b\\012c\n", "555555554000-555555558000 r-xp 00004000 fe:00 42 ");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
