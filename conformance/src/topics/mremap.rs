//! mremap(2), madvise(2), mlock(2), memfd mappings, process-wide limits of memory.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::fault::{Access, touch};
use crate::memory::{PAGE, RW, anonymous, map, peek, poke, unmap};
use crate::sys::{SysError, raw, sys};
use crate::util::create;
use std::os::fd::AsRawFd;

topic!(mremap: [
    grows_in_place_when_free,
    maymove_moves_with_contents,
    without_maymove_is_enomem,
    shrinks_and_unmaps_the_tail,
    fixed_moves_there_and_replaces,
    bad_arguments,
    of_unmapped_is_efault,
    file_mapping_grows_over_the_file,
    dontunmap_leaves_zeroes,
    dontneed_of_anonymous_is_zero_again,
    dontneed_of_private_file_is_the_file_again,
    dontneed_of_shared_keeps,
    madvise_checks,
    dontfork_is_missing_in_the_child,
    wipeonfork_is_zero_in_the_child,
    remove_punches_a_hole,
    populate_read_and_write,
    mlock_and_limits,
    address_space_limit_is_enomem,
    stack_grows_by_itself,
    old_size_zero_shares_again,
]);

fn mremap(old: *mut u8, old_len: usize, len: usize, flags: i32, to: usize) -> Result<*mut u8, SysError> {
    raw!(SYS_mremap(old, old_len, len, flags, to)).map(|address| address as usize as *mut u8)
}

fn advise(memory: *mut u8, len: usize, advice: i32) -> Result<(), SysError> {
    raw!(SYS_madvise(memory, len, advice)).map(drop)
}

/// Fills the beginning of each page with its number plus one.
fn numbered(pages: usize) -> Result<*mut u8, SysError> {
    let memory = anonymous(pages, RW)?;
    (0..pages).for_each(|page| poke(memory, page * PAGE, page as u8 + 1));
    Ok(memory)
}

fn grows_in_place_when_free() -> CaseResult {
    let memory = numbered(4)?;
    unmap(memory.wrapping_add(2 * PAGE), 2 * PAGE)?;
    let grown = mremap(memory, 2 * PAGE, 4 * PAGE, 0, 0)?;
    check_eq!(grown, memory);
    check_eq!((peek(memory, PAGE), peek(memory, 2 * PAGE), peek(memory, 3 * PAGE)), (2, 0, 0));
    poke(memory, 4 * PAGE - 1, 1);
    Ok(())
}

fn maymove_moves_with_contents() -> CaseResult {
    let memory = numbered(4)?;
    let moved = mremap(memory, 2 * PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE, 0)?;
    check!(moved != memory);
    check_eq!((peek(moved, 0), peek(moved, PAGE), peek(moved, 63 * PAGE)), (1, 2, 0));
    check!(touch(memory as usize, Access::Read)?.is_some());
    check_eq!(peek(memory, 2 * PAGE), 3);
    Ok(())
}

fn without_maymove_is_enomem() -> CaseResult {
    let memory = numbered(4)?;
    expect_errno!(mremap(memory, 2 * PAGE, 3 * PAGE, 0, 0), libc::ENOMEM);
    check_eq!(peek(memory, PAGE), 2);
    Ok(())
}

fn shrinks_and_unmaps_the_tail() -> CaseResult {
    let memory = numbered(4)?;
    check_eq!(mremap(memory, 4 * PAGE, PAGE, 0, 0)?, memory);
    check_eq!(peek(memory, 0), 1);
    check!(touch(memory as usize + PAGE, Access::Read)?.is_some());
    Ok(())
}

fn fixed_moves_there_and_replaces() -> CaseResult {
    let from = numbered(2)?;
    let to = numbered(4)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let moved = mremap(from, 2 * PAGE, 2 * PAGE, flags, to as usize + PAGE)?;
    check_eq!(moved as usize, to as usize + PAGE);
    check_eq!([0, 1, 2, 3].map(|page| peek(to, page * PAGE)), [1, 1, 2, 4]);
    check!(touch(from as usize, Access::Read)?.is_some());
    expect_errno!(mremap(to, 2 * PAGE, 2 * PAGE, flags, to as usize + PAGE), libc::EINVAL);
    expect_errno!(mremap(to, PAGE, PAGE, flags, to as usize + 2 * PAGE + 1), libc::EINVAL);
    expect_errno!(mremap(to, PAGE, PAGE, libc::MREMAP_FIXED, to as usize + 2 * PAGE), libc::EINVAL);
    Ok(())
}

fn bad_arguments() -> CaseResult {
    let memory = numbered(2)?;
    expect_errno!(mremap(memory.wrapping_add(1), PAGE, PAGE, 0, 0), libc::EINVAL);
    expect_errno!(mremap(memory, PAGE, 0, 0, 0), libc::EINVAL);
    expect_errno!(mremap(memory, PAGE, PAGE, 0x100, 0), libc::EINVAL);
    expect_errno!(mremap(memory, 0, PAGE, libc::MREMAP_MAYMOVE, 0), libc::EINVAL);
    check_eq!(mremap(memory, PAGE, PAGE, 0, 0)?, memory);
    Ok(())
}

fn of_unmapped_is_efault() -> CaseResult {
    let memory = numbered(2)?;
    unmap(memory, 2 * PAGE)?;
    expect_errno!(mremap(memory, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0), libc::EFAULT);
    // Two mappings at once cannot grow.
    let memory = numbered(3)?;
    crate::memory::protect(memory.wrapping_add(PAGE), PAGE, libc::PROT_READ)?;
    expect_errno!(mremap(memory, 2 * PAGE, 5 * PAGE, libc::MREMAP_MAYMOVE, 0), libc::EFAULT);
    Ok(())
}

fn file_mapping_grows_over_the_file() -> CaseResult {
    let data: Vec<u8> = (0..4u8).flat_map(|page| [page + 1; PAGE]).collect();
    let file = create(c"f", &data)?;
    let memory = map(2 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), PAGE as i64)?;
    let moved = mremap(memory, 2 * PAGE, 3 * PAGE, libc::MREMAP_MAYMOVE, 0)?;
    check_eq!([0, 1, 2].map(|page| peek(moved, page * PAGE)), [2, 3, 4]);
    poke(moved, 2 * PAGE, 99);
    check_eq!(crate::util::pread(file.as_raw_fd(), 3 * PAGE as i64, 1)?, [99]);
    Ok(())
}

fn dontunmap_leaves_zeroes() -> CaseResult {
    const DONTUNMAP: i32 = 4;
    let memory = numbered(2)?;
    let moved = mremap(memory, 2 * PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE | DONTUNMAP, 0)?;
    check!(moved != memory);
    check_eq!((peek(moved, 0), peek(moved, PAGE)), (1, 2));
    check_eq!((peek(memory, 0), peek(memory, PAGE)), (0, 0));
    expect_errno!(mremap(memory, 2 * PAGE, 3 * PAGE, libc::MREMAP_MAYMOVE | DONTUNMAP, 0), libc::EINVAL);
    Ok(())
}

fn dontneed_of_anonymous_is_zero_again() -> CaseResult {
    let memory = numbered(4)?;
    advise(memory.wrapping_add(PAGE), 2 * PAGE, libc::MADV_DONTNEED)?;
    check_eq!([0, 1, 2, 3].map(|page| peek(memory, page * PAGE)), [1, 0, 0, 4]);
    poke(memory, PAGE, 9);
    check_eq!(peek(memory, PAGE), 9);
    Ok(())
}

fn dontneed_of_private_file_is_the_file_again() -> CaseResult {
    let file = create(c"f", &[b'f'; PAGE])?;
    let memory = map(PAGE, RW, libc::MAP_PRIVATE, file.as_raw_fd(), 0)?;
    poke(memory, 0, b'p');
    advise(memory, PAGE, libc::MADV_DONTNEED)?;
    check_eq!(peek(memory, 0), b'f');
    Ok(())
}

fn dontneed_of_shared_keeps() -> CaseResult {
    let memory = map(PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)?;
    poke(memory, 0, 5);
    advise(memory, PAGE, libc::MADV_DONTNEED)?;
    check_eq!(peek(memory, 0), 5);
    Ok(())
}

fn madvise_checks() -> CaseResult {
    let memory = numbered(3)?;
    for advice in [libc::MADV_NORMAL, libc::MADV_RANDOM, libc::MADV_SEQUENTIAL, libc::MADV_WILLNEED] {
        advise(memory, 3 * PAGE, advice)?;
    }
    expect_errno!(advise(memory, PAGE, 9999), libc::EINVAL);
    expect_errno!(advise(memory.wrapping_add(1), PAGE, libc::MADV_DONTNEED), libc::EINVAL);
    advise(memory, 0, libc::MADV_DONTNEED)?;
    unmap(memory.wrapping_add(PAGE), PAGE)?;
    expect_errno!(advise(memory, 3 * PAGE, libc::MADV_DONTNEED), libc::ENOMEM);
    // It has been done all the same where something is mapped.
    check_eq!((peek(memory, 0), peek(memory, 2 * PAGE)), (0, 0));
    Ok(())
}

fn dontfork_is_missing_in_the_child() -> CaseResult {
    let memory = numbered(2)?;
    advise(memory, PAGE, libc::MADV_DONTFORK)?;
    let child = fork_child(|| match touch(memory as usize, Access::Read) {
        Ok(Some(_)) if peek(memory, PAGE) == 2 => 0,
        _ => 1,
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(peek(memory, 0), 1);
    Ok(())
}

fn wipeonfork_is_zero_in_the_child() -> CaseResult {
    let memory = numbered(2)?;
    advise(memory, PAGE, libc::MADV_WIPEONFORK)?;
    let child = fork_child(|| i32::from((peek(memory, 0), peek(memory, PAGE)) != (0, 2)))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(peek(memory, 0), 1);
    Ok(())
}

fn remove_punches_a_hole() -> CaseResult {
    let file = crate::sys::owned(sys!(memfd_create(c"m".as_ptr(), 0))?);
    sys!(ftruncate(file.as_raw_fd(), 2 * PAGE as i64))?;
    let memory = map(2 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    poke(memory, 0, 1);
    poke(memory, PAGE, 2);
    advise(memory, PAGE, libc::MADV_REMOVE)?;
    check_eq!(crate::sys::fstat(file.as_raw_fd())?.st_blocks, 8);
    check_eq!((peek(memory, 0), peek(memory, PAGE)), (0, 2));
    let private = numbered(1)?;
    expect_errno!(advise(private, PAGE, libc::MADV_REMOVE), libc::EINVAL);
    Ok(())
}

fn populate_read_and_write() -> CaseResult {
    const POPULATE_READ: i32 = 22;
    const POPULATE_WRITE: i32 = 23;
    let memory = anonymous(2, RW)?;
    advise(memory, 2 * PAGE, POPULATE_WRITE)?;
    let mut seen = [0u8; 2];
    raw!(SYS_mincore(memory, 2 * PAGE, seen.as_mut_ptr()))?;
    check_eq!([seen[0] & 1, seen[1] & 1], [1, 1]);
    crate::memory::protect(memory, PAGE, libc::PROT_READ)?;
    advise(memory, PAGE, POPULATE_READ)?;
    expect_errno!(advise(memory, PAGE, POPULATE_WRITE), libc::EINVAL);
    Ok(())
}

fn mlock_and_limits() -> CaseResult {
    in_child(|| {
        let limit = libc::rlimit { rlim_cur: 4 * PAGE as u64, rlim_max: 4 * PAGE as u64 };
        sys!(setrlimit(libc::RLIMIT_MEMLOCK, &limit))?;
        sys!(setresuid(1000, 1000, 1000))?;
        let memory = anonymous(8, RW)?;
        sys!(mlock(memory.cast(), 2 * PAGE))?;
        expect_errno!(sys!(mlock(memory.cast(), 8 * PAGE)), libc::ENOMEM);
        sys!(munlock(memory.cast(), 2 * PAGE))?;
        unmap(memory, 8 * PAGE)?;
        expect_errno!(sys!(mlock(memory.cast(), PAGE)), libc::ENOMEM);
        expect_errno!(sys!(mlockall(0)), libc::EINVAL);
        Ok(())
    })
}

fn address_space_limit_is_enomem() -> CaseResult {
    in_child(|| {
        let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
        sys!(setrlimit(libc::RLIMIT_AS, &limit))?;
        expect_errno!(anonymous((1 << 30) / PAGE, RW), libc::ENOMEM);
        let memory = anonymous(16, RW)?;
        expect_errno!(mremap(memory, 16 * PAGE, 1 << 30, libc::MREMAP_MAYMOVE, 0), libc::ENOMEM);
        unmap(memory, 16 * PAGE)?;
        Ok(())
    })
}

fn deep(bytes: usize) -> usize {
    let mut frame = [0u8; 4096];
    std::hint::black_box(&mut frame);
    if bytes < frame.len() { 0 } else { deep(bytes - frame.len()) + usize::from(frame[bytes % 4096]) }
}

fn stack_grows_by_itself() -> CaseResult {
    check_eq!(deep(4 << 20), 0);
    // At once by more than a page: the kernel has no opinion on the distance.
    let mut big = [1u8; 1 << 20];
    std::hint::black_box(&mut big);
    check_eq!(big[0], 1);
    Ok(())
}

fn old_size_zero_shares_again() -> CaseResult {
    let memory = map(PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)?;
    poke(memory, 0, 7);
    let again = mremap(memory, 0, PAGE, libc::MREMAP_MAYMOVE, 0)?;
    check!(again != memory);
    check_eq!(peek(again, 0), 7);
    poke(again, 0, 8);
    check_eq!(peek(memory, 0), 8);
    Ok(())
}
