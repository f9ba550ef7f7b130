//! mprotect(2), brk(2), msync(2), mincore(2), and mappings across fork(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::fault::{Access, touch};
use crate::memory::{PAGE, RW, anonymous, map, map_at, peek, poke, post, protect, shared_words, unmap, wait_for_word};
use crate::sys::{open, raw, sys};
use crate::util::{create, pread};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

topic!(mmap_more: [
    mprotect_splits_and_stops_at_holes,
    mprotect_shared_read_only_file_is_eacces,
    fork_copies_private_and_shares_shared,
    fork_keeps_protection,
    brk_grows_and_shrinks,
    write_sees_mapping_and_read_sees_it_too,
    msync_checks,
    mincore_tells_touched_pages,
    noreserve_of_a_terabyte,
    more_than_there_can_be_is_enomem,
    mmap_of_a_pipe_and_a_directory_is_enodev,
    grows_down_flag_grows,
    executable_code_runs,
    mapping_of_dev_zero,
    many_mappings_merge_and_split,
    truncation_takes_private_copies,
]);

fn mprotect_splits_and_stops_at_holes() -> CaseResult {
    let memory = anonymous(4, RW)?;
    protect(memory.wrapping_add(PAGE), PAGE, libc::PROT_READ)?;
    check_eq!(touch(memory as usize, Access::Write)?, None);
    check!(touch(memory as usize + PAGE, Access::Write)?.is_some());
    check_eq!(touch(memory as usize + 2 * PAGE, Access::Write)?, None);
    unmap(memory.wrapping_add(2 * PAGE), PAGE)?;
    expect_errno!(protect(memory, 4 * PAGE, libc::PROT_NONE), libc::ENOMEM);
    // What lies before the hole has changed.
    check!(touch(memory as usize, Access::Read)?.is_some());
    check_eq!(touch(memory as usize + 3 * PAGE, Access::Write)?, None);
    expect_errno!(protect(memory.wrapping_add(8), PAGE, RW), libc::EINVAL);
    expect_errno!(protect(memory, PAGE, 0x40), libc::EINVAL);
    protect(memory, 0, RW)?;
    Ok(())
}

fn mprotect_shared_read_only_file_is_eacces() -> CaseResult {
    create(c"f", b"data")?;
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    let memory = map(PAGE, libc::PROT_READ, libc::MAP_SHARED, reader.as_raw_fd(), 0)?;
    expect_errno!(protect(memory, PAGE, RW), libc::EACCES);
    let memory = map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, reader.as_raw_fd(), 0)?;
    protect(memory, PAGE, RW)?;
    poke(memory, 0, b'D');
    Ok(())
}

fn fork_copies_private_and_shares_shared() -> CaseResult {
    let words = shared_words()?;
    let private = anonymous(2, RW)?;
    poke(private, 0, 1);
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        let seen = peek(private, 0);
        poke(private, 0, 3);
        poke(private, PAGE, 3);
        words[2].store(u32::from(seen), Ordering::SeqCst);
        post(&words[1]);
        0
    })?;
    poke(private, 0, 2);
    post(&words[0]);
    wait_for_word(&words[1], 1);
    check_eq!(words[2].load(Ordering::SeqCst), 1);
    check_eq!((peek(private, 0), peek(private, PAGE)), (2, 0));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    // After the child has gone the page is not shared any more, and can be written.
    poke(private, 0, 9);
    check_eq!(peek(private, 0), 9);
    Ok(())
}

fn fork_keeps_protection() -> CaseResult {
    let memory = anonymous(1, RW)?;
    poke(memory, 0, 5);
    protect(memory, PAGE, libc::PROT_READ)?;
    let child = fork_child(|| match touch(memory as usize, Access::Write) {
        Ok(Some(fault)) if fault.code == 2 && peek(memory, 0) == 5 => 0,
        _ => 1,
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn brk_grows_and_shrinks() -> CaseResult {
    let start = raw!(SYS_brk(0))? as usize;
    check_eq!(raw!(SYS_brk(start + 10 * PAGE))? as usize, start + 10 * PAGE);
    let memory = start as *mut u8;
    let first = start.next_multiple_of(PAGE) - start;
    check_eq!(peek(memory, first + 5 * PAGE), 0);
    poke(memory, first + 5 * PAGE, 7);
    check_eq!(raw!(SYS_brk(start + PAGE))? as usize, start + PAGE);
    check!(touch(start + first + 5 * PAGE, Access::Read)?.is_some());
    // What comes back is zero again.
    raw!(SYS_brk(start + 10 * PAGE))?;
    check_eq!(peek(memory, first + 5 * PAGE), 0);
    // A break that cannot be is answered with the present one.
    check_eq!(raw!(SYS_brk(1))? as usize, start + 10 * PAGE);
    check_eq!(raw!(SYS_brk(1usize << 46))? as usize, start + 10 * PAGE);
    raw!(SYS_brk(start))?;
    Ok(())
}

fn write_sees_mapping_and_read_sees_it_too() -> CaseResult {
    let file = create(c"f", &[b'.'; PAGE])?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    // A file read into its own mapping.
    poke(memory, 0, b'!');
    check_eq!(raw!(SYS_pread64(file.as_raw_fd(), memory.wrapping_add(100), 10, 0))?, 10);
    check_eq!(pread(file.as_raw_fd(), 100, 2)?, b"!.");
    check_eq!(raw!(SYS_pwrite64(file.as_raw_fd(), memory.wrapping_add(100), 10, 200))?, 10);
    check_eq!(peek(memory, 200), b'!');
    Ok(())
}

fn msync_checks() -> CaseResult {
    let file = create(c"f", &[1; PAGE])?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    poke(memory, 0, 2);
    for flags in [libc::MS_SYNC, libc::MS_ASYNC, libc::MS_INVALIDATE, 0] {
        raw!(SYS_msync(memory, PAGE, flags))?;
    }
    expect_errno!(raw!(SYS_msync(memory, PAGE, libc::MS_SYNC | libc::MS_ASYNC)), libc::EINVAL);
    expect_errno!(raw!(SYS_msync(memory, PAGE, 0x100)), libc::EINVAL);
    expect_errno!(raw!(SYS_msync(memory.wrapping_add(1), PAGE, libc::MS_SYNC)), libc::EINVAL);
    unmap(memory, PAGE)?;
    expect_errno!(raw!(SYS_msync(memory, PAGE, libc::MS_SYNC)), libc::ENOMEM);
    Ok(())
}

fn mincore_tells_touched_pages() -> CaseResult {
    let memory = anonymous(4, RW)?;
    poke(memory, PAGE, 1);
    let mut seen = [0xffu8; 4];
    raw!(SYS_mincore(memory, 4 * PAGE, seen.as_mut_ptr()))?;
    check_eq!(seen[1] & 1, 1);
    expect_errno!(raw!(SYS_mincore(memory.wrapping_add(1), PAGE, seen.as_mut_ptr())), libc::EINVAL);
    expect_errno!(raw!(SYS_mincore(memory, PAGE, 8)), libc::EFAULT);
    unmap(memory, 4 * PAGE)?;
    expect_errno!(raw!(SYS_mincore(memory, PAGE, seen.as_mut_ptr())), libc::ENOMEM);
    Ok(())
}

fn noreserve_of_a_terabyte() -> CaseResult {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let memory = map(1 << 40, libc::PROT_NONE, flags, -1, 0)?;
    protect(memory.wrapping_add(1 << 39), PAGE, RW)?;
    poke(memory, (1 << 39) + 17, 3);
    check_eq!(peek(memory, (1 << 39) + 17), 3);
    unmap(memory, 1 << 40)?;
    Ok(())
}

fn more_than_there_can_be_is_enomem() -> CaseResult {
    const HUGE: usize = 1 << 45;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    expect_errno!(map(HUGE, RW, private, -1, 0), libc::ENOMEM);
    expect_errno!(map(HUGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0), libc::ENOMEM);
    // What is not to be written is not promised.
    let memory = map(HUGE, libc::PROT_NONE, private, -1, 0)?;
    expect_errno!(protect(memory, HUGE, RW), libc::ENOMEM);
    protect(memory, PAGE, RW)?;
    poke(memory, 0, 1);
    unmap(memory, HUGE)?;
    // Nor made present without end, whether it is said to be or not.
    let memory = map(PAGE, RW, private, -1, 0)?;
    expect_errno!(raw!(SYS_mremap(memory, PAGE, HUGE, libc::MREMAP_MAYMOVE)), libc::ENOMEM);
    Ok(())
}

fn mmap_of_a_pipe_and_a_directory_is_enodev() -> CaseResult {
    let (reader, _writer) = crate::sys::pipe(0)?;
    expect_errno!(map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, reader.as_raw_fd(), 0), libc::ENODEV);
    let dir = open(c".", libc::O_RDONLY, 0)?;
    expect_errno!(map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, dir.as_raw_fd(), 0), libc::ENODEV);
    Ok(())
}

fn grows_down_flag_grows() -> CaseResult {
    // Free addresses below, found by mapping and unmapping; grows-down memory keeps a gap of 1 MiB to what is below it.
    let area = map(8 << 20, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)? as usize;
    raw!(SYS_munmap(area, 8 << 20))?;
    let stack = area + (6 << 20);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN | libc::MAP_FIXED;
    map_at(stack, PAGE, RW, flags, -1, 0)?;
    check_eq!(touch(stack, Access::Write)?, None);
    check_eq!(touch(stack - 8, Access::Write)?, None);
    check_eq!(touch(stack - 100 * PAGE, Access::Write)?, None);
    Ok(())
}

fn executable_code_runs() -> CaseResult {
    // mov eax, 42; ret
    let code = [0xb8u8, 42, 0, 0, 0, 0xc3];
    let memory = anonymous(1, RW)?;
    code.iter().enumerate().for_each(|(at, byte)| poke(memory, at, *byte));
    protect(memory, PAGE, libc::PROT_READ | libc::PROT_EXEC)?;
    // SAFETY: the page holds a function of this signature.
    #[expect(clippy::disallowed_methods, reason = "a function made of bytes")]
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(memory) };
    check_eq!(function(), 42);
    protect(memory, PAGE, RW | libc::PROT_EXEC)?;
    poke(memory, 1, 43);
    check_eq!(function(), 43);
    Ok(())
}

fn mapping_of_dev_zero() -> CaseResult {
    let zero = open(c"/dev/zero", libc::O_RDWR, 0)?;
    for flags in [libc::MAP_PRIVATE, libc::MAP_SHARED] {
        let memory = map(2 * PAGE, RW, flags, zero.as_raw_fd(), 0)?;
        check_eq!(peek(memory, PAGE), 0);
        poke(memory, PAGE, 1);
        let child = fork_child(|| {
            poke(memory, PAGE, 2);
            0
        })?;
        wait_for(child)?;
        check_eq!(peek(memory, PAGE), if flags == libc::MAP_SHARED { 2 } else { 1 });
    }
    Ok(())
}

fn many_mappings_merge_and_split() -> CaseResult {
    let memory = anonymous(256, RW)?;
    for page in (0..256).step_by(2) {
        protect(memory.wrapping_add(page * PAGE), PAGE, libc::PROT_READ)?;
    }
    protect(memory, 256 * PAGE, RW)?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let (start, end) = (memory as usize, memory as usize + 256 * PAGE);
    let inside = maps.lines().filter(|line| {
        let (from, rest) = line.split_once('-').unwrap_or_default();
        let to = rest.split(' ').next().unwrap_or_default();
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        number(from) < end && number(to) > start
    });
    check_eq!(inside.count(), 1);
    for page in (0..256).step_by(2) {
        protect(memory.wrapping_add(page * PAGE), PAGE, libc::PROT_READ)?;
    }
    for page in 0..256 {
        check_eq!(touch(memory as usize + page * PAGE, Access::Write)?.is_some(), page % 2 == 0);
    }
    Ok(())
}

fn truncation_takes_private_copies() -> CaseResult {
    // A file of the container's root would do as well; the directory of the case is in memory.
    let name = c"in-memory";
    let in_memory = crate::sys::owned(sys!(memfd_create(name.as_ptr(), 0))?);
    for file in [create(c"f", b"")?, in_memory] {
        let end = 3 * PAGE as i64;
        sys!(ftruncate(file.as_raw_fd(), end))?;
        let memory = map(3 * PAGE, RW, libc::MAP_PRIVATE, file.as_raw_fd(), 0)?;
        let fill = || (0..3).for_each(|page| poke(memory, page * PAGE + 2000, b'p'));
        let seen = || [0, 1, 2].map(|page| peek(memory, page * PAGE + 2000));
        fill();
        sys!(ftruncate(file.as_raw_fd(), PAGE as i64 + 100))?;
        sys!(ftruncate(file.as_raw_fd(), end))?;
        // The page that the end was in stays whole: it is a copy.
        check_eq!(seen(), [b'p', b'p', 0]);
        fill();
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        sys!(fallocate(file.as_raw_fd(), punch, 0, end))?;
        check_eq!(seen(), [b'p'; 3]);
        unmap(memory, 3 * PAGE)?;
    }
    Ok(())
}
