//! Flags of the memory calls, `mmap(2)`, `madvise(2)`, `mremap(2)`, `msync(2)`, `mlock(2)`.

macro_rules! constants {
    ($(#[$doc:meta])* $($name:ident $value:literal)*) => {
        $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: u32 = $value;)*
        #[cfg(test)]
        const ALL: &[(&str, u32, u32)] = &[$((stringify!($name), $name, linux_raw_sys::general::$name)),*];
    };
}

constants! {
    PROT_NONE 0x0
    PROT_READ 0x1
    PROT_WRITE 0x2
    PROT_EXEC 0x4
    PROT_SEM 0x8
    PROT_GROWSDOWN 0x0100_0000
    PROT_GROWSUP 0x0200_0000

    MAP_SHARED 0x01
    MAP_PRIVATE 0x02
    MAP_SHARED_VALIDATE 0x03
    MAP_TYPE 0x0f
    MAP_FIXED 0x10
    MAP_ANONYMOUS 0x20
    MAP_32BIT 0x40
    MAP_GROWSDOWN 0x0100
    MAP_DENYWRITE 0x0800
    MAP_EXECUTABLE 0x1000
    MAP_LOCKED 0x2000
    MAP_NORESERVE 0x4000
    MAP_POPULATE 0x8000
    MAP_NONBLOCK 0x1_0000
    MAP_STACK 0x2_0000
    MAP_HUGETLB 0x4_0000
    MAP_SYNC 0x8_0000
    MAP_FIXED_NOREPLACE 0x10_0000
    MAP_UNINITIALIZED 0x400_0000
    MAP_HUGE_SHIFT 26
    MAP_HUGE_MASK 0x3f

    MADV_NORMAL 0
    MADV_RANDOM 1
    MADV_SEQUENTIAL 2
    MADV_WILLNEED 3
    MADV_DONTNEED 4
    MADV_FREE 8
    MADV_REMOVE 9
    MADV_DONTFORK 10
    MADV_DOFORK 11
    MADV_HWPOISON 100
    MADV_SOFT_OFFLINE 101
    MADV_MERGEABLE 12
    MADV_UNMERGEABLE 13
    MADV_HUGEPAGE 14
    MADV_NOHUGEPAGE 15
    MADV_DONTDUMP 16
    MADV_DODUMP 17
    MADV_WIPEONFORK 18
    MADV_KEEPONFORK 19
    MADV_COLD 20
    MADV_PAGEOUT 21
    MADV_POPULATE_READ 22
    MADV_POPULATE_WRITE 23
    MADV_DONTNEED_LOCKED 24
    MADV_COLLAPSE 25

    MREMAP_MAYMOVE 1
    MREMAP_FIXED 2
    MREMAP_DONTUNMAP 4

    MS_ASYNC 1
    MS_INVALIDATE 2
    MS_SYNC 4

    MCL_CURRENT 1
    MCL_FUTURE 2
    MCL_ONFAULT 4
    MLOCK_ONFAULT 1
}

/// `MAP_DROPPABLE`, since Linux 6.11.
pub const MAP_DROPPABLE: u32 = 0x08;
/// `MADV_GUARD_INSTALL`, since Linux 6.13.
pub const MADV_GUARD_INSTALL: u32 = 102;
/// `MADV_GUARD_REMOVE`, since Linux 6.13.
pub const MADV_GUARD_REMOVE: u32 = 103;

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_those_of_linux() {
        for (name, ours, linux) in super::ALL {
            assert_eq!(ours, linux, "{name}");
        }
    }
}
