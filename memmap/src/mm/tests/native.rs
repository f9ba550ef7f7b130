//! Random calls, held against what the host's Linux says to the same calls: each errno, and how mappings split and merge.
use std::ops::Range;

use abi::Errno;
use abi::mman::{MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED};
use proptest::prelude::*;

use super::fake::Guest;
use crate::{MmLimits, MmapArgs, PAGE};

/// Where both sides play: nothing else is there on either, nor will the host place anything there by itself.
const REGION: Range<u64> = 0x1234_0000_0000..0x1234_0000_0000 + 40 * PAGE;

#[derive(Clone, Copy, Debug)]
struct Op {
    call: Call,
    addr: u64,
    len: u64,
    flags: u32,
    prot: u32,
    to: u64,
    to_len: u64,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Mmap,
    Munmap,
    Mprotect,
    Mremap,
    Madvise,
    Msync,
    Mlock,
    Munlock,
    Mincore,
    Touch,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => Just(Call::Mmap),
        2 => Just(Call::Munmap),
        3 => Just(Call::Mprotect),
        4 => Just(Call::Mremap),
        4 => Just(Call::Madvise),
        1 => Just(Call::Msync),
        1 => Just(Call::Mlock),
        1 => Just(Call::Munlock),
        1 => Just(Call::Mincore),
        3 => Just(Call::Touch),
    ]
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![20 => (0..36u64).prop_map(|p| REGION.start + p * PAGE), 1 => Just(REGION.start + 7), 1 => Just(u64::MAX - 4095)]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![20 => (1..9u64).prop_map(|p| p * PAGE), 2 => Just(0), 2 => Just(PAGE + 1), 1 => Just(u64::MAX - 5)]
}

fn op() -> impl Strategy<Value = Op> {
    let prot = prop_oneof![6 => 0..8u32, 1 => Just(0x10), 1 => Just(0x0100_0001)];
    (call(), place(), length(), 0..104u32, prot, place(), length()).prop_map(
        |(call, addr, len, flags, prot, to, to_len)| Op { call, addr, len, flags, prot, to, to_len },
    )
}

impl Op {
    fn mmap_flags(&self) -> u32 {
        let kind = [MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE | MAP_NORESERVE, 0];
        let fixed = if self.flags.is_multiple_of(2) { MAP_FIXED } else { MAP_FIXED_NOREPLACE };
        kind[self.flags as usize % 5] | MAP_ANONYMOUS | fixed
    }
    /// Only moves whose target is told: where Linux puts others depends on what else it has.
    fn mremap_flags(&self) -> u32 {
        [0, 3, 3, 3, 0, 2, 7, 8, 4][self.flags as usize % 9]
    }
    fn msync_flags(&self) -> u32 {
        [1, 4, 2, 6, 5, 8][self.flags as usize % 6]
    }
    /// Advice whose outcome does not depend on the host's configuration.
    fn advice(&self) -> u32 {
        match self.flags {
            // Hardware poison, huge pages and same-page merging; WILLNEED depends on swap.
            100 | 101 | 25 | 12..=15 | 3 => 4,
            // Guards, which Linux has for few kinds of mappings.
            102 | 103 => 8,
            other => other,
        }
    }

    fn native(&self) -> Result<u64, i32> {
        let Op { addr, len, prot, to, to_len, .. } = *self;
        let raw = |number: libc::c_long, args: [u64; 6]| {
            let [a, b, c, d, e, f] = args;
            // SAFETY: the calls change nothing but mappings in the region that only this test uses, or fail.
            let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
            if result == -1 {
                Err(std::io::Error::last_os_error().raw_os_error().expect("an error number"))
            } else {
                Ok(result.cast_unsigned())
            }
        };
        let mut vec = vec![0u8; 64];
        match self.call {
            Call::Mmap => {
                let minus_one = u64::MAX;
                raw(libc::SYS_mmap, [addr, len, prot.into(), self.mmap_flags().into(), minus_one, 0])
            }
            Call::Munmap => raw(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]),
            Call::Mprotect => raw(libc::SYS_mprotect, [addr, len, prot.into(), 0, 0, 0]),
            Call::Mremap => raw(libc::SYS_mremap, [addr, len, to_len, self.mremap_flags().into(), to, 0]),
            Call::Madvise => raw(libc::SYS_madvise, [addr, len, self.advice().into(), 0, 0, 0]),
            Call::Msync => raw(libc::SYS_msync, [addr, len, self.msync_flags().into(), 0, 0, 0]),
            Call::Mlock => raw(libc::SYS_mlock2, [addr, len, (self.flags % 3).into(), 0, 0, 0]),
            Call::Munlock => raw(libc::SYS_munlock, [addr, len, 0, 0, 0, 0]),
            Call::Mincore => raw(libc::SYS_mincore, [addr, len, vec.as_mut_ptr().addr() as u64, 0, 0, 0]),
            Call::Touch => {
                // Stores by the kernel, which fail where the mapping does not allow it.
                let fd = std::fs::File::open("/dev/zero").expect("open");
                use std::os::fd::AsRawFd;
                raw(libc::SYS_read, [fd.as_raw_fd().unsigned_abs().into(), addr, len.min(PAGE), 0, 0, 0])
                    .map(|_| 0)
            }
        }
    }

    fn ours(&self, guest: &Guest, vec: u64) -> Result<u64, i32> {
        let Op { addr, len, prot, to, to_len, .. } = *self;
        let limits = MmLimits::default();
        let mm = &guest.mm;
        let zero = |result: Result<(), Errno>| result.map(|()| 0);
        let result = match self.call {
            Call::Mmap => {
                let flags = self.mmap_flags();
                mm.mmap(MmapArgs { addr, len, prot, flags, ..MmapArgs::default() })
            }
            Call::Munmap => zero(mm.munmap(addr, len)),
            Call::Mprotect => zero(mm.mprotect(addr, len, prot, limits)),
            Call::Mremap => mm.mremap(addr, len, to_len, self.mremap_flags(), to, limits),
            Call::Madvise => zero(mm.madvise(addr, len, self.advice())),
            Call::Msync => zero(mm.msync(addr, len, self.msync_flags())),
            Call::Mlock => zero(mm.mlock(addr, len, self.flags % 3, limits)),
            Call::Munlock => zero(mm.munlock(addr, len)),
            Call::Mincore => zero(mm.mincore(addr, len, vec)),
            Call::Touch => {
                let n = usize::try_from(len.min(PAGE)).expect("small");
                mm.write_bytes_partial(addr, &vec![0; n]).map(|_| 0)
            }
        };
        result.map_err(|e| i32::from(e.raw()))
    }
}

/// A line of `/proc/self/maps`: range, permissions.
fn native_maps() -> Vec<(Range<u64>, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let inside = start < REGION.end + 64 * PAGE && end > REGION.start;
        inside.then(|| (start..end, words.next().unwrap_or_default().to_owned()))
    };
    maps.lines().filter_map(line).collect()
}

fn our_maps(guest: &Guest) -> Vec<(Range<u64>, String)> {
    let line = |v: crate::VmaInfo| {
        let bit = |bit: u32, c: char| if v.prot & bit != 0 { c } else { '-' };
        let shared = if v.shared { 's' } else { 'p' };
        (v.range, [bit(1, 'r'), bit(2, 'w'), bit(4, 'x'), shared].iter().collect())
    };
    guest.mm.vmas().into_iter().filter(|v| v.range.start < REGION.end + 64 * PAGE).map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn answers_as_the_host_does(ops in prop::collection::vec(op(), 1..40)) {
        let guest = Guest::new();
        let vec = guest.anonymous(PAGE);
        let all = Op { call: Call::Munmap, addr: REGION.start, len: 200 * PAGE, flags: 0, prot: 0, to: 0, to_len: 0 };
        all.native().expect("unmapped");
        for op in &ops {
            let (native, ours) = (op.native(), op.ours(&guest, vec));
            prop_assert_eq!(ours, native, "{:x?}", op);
            prop_assert_eq!(our_maps(&guest), native_maps(), "{:x?}", op);
        }
        all.native().expect("unmapped");
    }
}
