//! What the host kernel told this process about the machine.
use std::ops::Range;
use std::sync::OnceLock;

/// What a guest's auxiliary vector takes from the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAuxv {
    /// `AT_HWCAP`: the word that `cpuid` leaf 1 gives in `edx`.
    pub hwcap: u64,
    /// `AT_HWCAP2`, without what guests are not to use.
    pub hwcap2: u64,
    /// `AT_MINSIGSTKSZ`: what a signal frame takes, in bytes; 0 if the host does not tell.
    pub min_signal_stack: u64,
}

/// Reads this process's auxiliary vector. The first call also remembers where the host's vDSO lies, for which it reads
/// `/proc/self/maps`: call it before the process leaves the file system that has one.
#[must_use]
pub fn host_auxv() -> HostAuxv {
    let _ = vdso_ranges();
    HostAuxv {
        hwcap: value(libc::AT_HWCAP),
        hwcap2: value(libc::AT_HWCAP2) & !HWCAP2_FSGSBASE,
        min_signal_stack: value(libc::AT_MINSIGSTKSZ),
    }
}

/// A program may set its segment bases by instructions. Guests are not told: the sentry sees what they set by calls.
pub(crate) const HWCAP2_FSGSBASE: u64 = 1 << 1;

fn value(kind: libc::c_ulong) -> u64 {
    // SAFETY: getauxval takes any number and reads memory that the C library set up before main.
    unsafe { libc::getauxval(kind) }
}

/// The mappings of the vDSO and of the data pages that its code reads, ascending, the code last; empty if unknown.
pub(crate) fn vdso_ranges() -> &'static [Range<u64>] {
    static RANGES: OnceLock<Vec<Range<u64>>> = OnceLock::new();
    RANGES.get_or_init(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        find_vdso(&maps, value(libc::AT_SYSINFO_EHDR))
    })
}

/// The vDSO's code, as every process of the host has it; empty if unknown.
pub(crate) fn vdso_code() -> &'static [u8] {
    let Some(code) = vdso_ranges().last() else { return &[] };
    let (start, len) = (usize::try_from(code.start), usize::try_from(code.end - code.start));
    let (Ok(start), Ok(len)) = (start, len) else { return &[] };
    // SAFETY: the kernel mapped these bytes readable into this process; they never change, and nobody unmaps them.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), len) }
}

/// Finds the vDSO's code at `code` and the `[vvar…]` mappings that end where it, or one of them, starts.
fn find_vdso(maps: &str, code: u64) -> Vec<Range<u64>> {
    let all: Vec<Range<u64>> = maps.lines().filter_map(system_mapping).collect();
    let Some(mut first) = all.iter().find(|range| range.start == code) else {
        return Vec::new();
    };
    let mut found = vec![first.clone()];
    while let Some(before) = all.iter().find(|range| range.end == first.start) {
        found.insert(0, before.clone());
        first = before;
    }
    found
}

/// The range of a line of `/proc/PID/maps` that names a part of the vDSO.
fn system_mapping(line: &str) -> Option<Range<u64>> {
    let name = line.rsplit(' ').next()?;
    if name != "[vdso]" && !name.starts_with("[vvar") {
        return None;
    }
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    Some(hex(start)?..hex(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_parts_of_the_vdso() {
        let maps = "7fff0000-7fff1000 rw-p 00000000 00:00 0    [stack]\n\
                    7fff1000-7fff5000 r--p 00000000 00:00 0    [vvar]\n\
                    7fff5000-7fff7000 r--p 00000000 00:00 0    [vvar_vclock]\n\
                    7fff7000-7fff9000 r-xp 00000000 00:00 0    [vdso]\n";
        let parts = [0x7fff_1000..0x7fff_5000, 0x7fff_5000..0x7fff_7000, 0x7fff_7000..0x7fff_9000];
        assert_eq!(find_vdso(maps, 0x7fff_7000), parts);
        assert!(find_vdso(maps, 0x1000).is_empty());
        assert!(find_vdso("", 0).is_empty());
    }

    #[test]
    fn the_host_tells() {
        assert_ne!(host_auxv().hwcap, 0);
        assert!(!vdso_ranges().is_empty());
    }
}
