//! mmap(2), munmap(2), mprotect(2), brk(2), msync(2), mincore(2), and mappings across fork(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::fault::{Access, touch};
use crate::memory::{PAGE, RW, anonymous, map, map_at, peek, poke, unmap};
use crate::sys::{open, raw, sys, write};
use crate::util::{create, pread};
use std::os::fd::AsRawFd;

topic!(mmap: [
    anonymous_is_zero_and_writable,
    bad_arguments,
    private_file_copies_on_write,
    shared_file_writes_through,
    shared_mappings_of_one_file_agree,
    offset_maps_the_middle,
    tail_of_the_last_page_is_zero,
    access_mode_of_the_descriptor_is_checked,
    mapping_outlives_descriptor_and_name,
    fixed_replaces,
    fixed_noreplace_is_eexist,
    hint_is_taken_when_free,
    low_addresses_and_the_top_are_refused,
    munmap_splits,
    munmap_of_nothing_and_bad_ranges,
]);

fn anonymous_is_zero_and_writable() -> CaseResult {
    let memory = anonymous(16, RW)?;
    for page in 0..16 {
        check_eq!(peek(memory, page * PAGE + 5), 0);
        poke(memory, page * PAGE + 5, page as u8 + 1);
    }
    for page in 0..16 {
        check_eq!(peek(memory, page * PAGE + 5), page as u8 + 1);
    }
    check_eq!(memory as usize % PAGE, 0);
    Ok(())
}

fn bad_arguments() -> CaseResult {
    let (private, shared) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_SHARED);
    expect_errno!(map(0, RW, private, -1, 0), libc::EINVAL);
    expect_errno!(map(PAGE, RW, libc::MAP_ANONYMOUS, -1, 0), libc::EINVAL);
    expect_errno!(map(PAGE, RW, libc::MAP_PRIVATE, -1, 0), libc::EBADF);
    expect_errno!(map(usize::MAX, RW, private, -1, 0), libc::ENOMEM);
    expect_errno!(map(1 << 47, RW, private, -1, 0), libc::ENOMEM);
    let file = create(c"f", b"x")?;
    expect_errno!(map(PAGE, RW, shared, file.as_raw_fd(), 100), libc::EINVAL);
    expect_errno!(map(PAGE, RW, shared, file.as_raw_fd(), i64::MAX - 4095), libc::EOVERFLOW);
    expect_errno!(map_at(0x10_0001, PAGE, RW, private | libc::MAP_FIXED, -1, 0), libc::EINVAL);
    const VALIDATE: i32 = 3;
    expect_errno!(map(PAGE, RW, VALIDATE | 0x0200_0000, file.as_raw_fd(), 0), libc::EOPNOTSUPP);
    map(PAGE, RW, VALIDATE, file.as_raw_fd(), 0)?;
    // Flags that no kernel knows are not looked at without it.
    map(PAGE, RW, shared | 0x0200_0000, file.as_raw_fd(), 0)?;
    Ok(())
}

fn private_file_copies_on_write() -> CaseResult {
    let file = create(c"f", &[b'a'; 8192])?;
    let memory = map(2 * PAGE, RW, libc::MAP_PRIVATE, file.as_raw_fd(), 0)?;
    poke(memory, 1, b'z');
    check_eq!(pread(file.as_raw_fd(), 0, 3)?, b"aaa");
    sys!(pwrite(file.as_raw_fd(), b"bbbb".as_ptr().cast(), 4, 0))?;
    // The written page is this process's own now.
    check_eq!((peek(memory, 0), peek(memory, 1)), (b'a', b'z'));
    sys!(pwrite(file.as_raw_fd(), b"bbbb".as_ptr().cast(), 4, PAGE as i64))?;
    check_eq!(peek(memory, PAGE), b'b');
    Ok(())
}

fn shared_file_writes_through() -> CaseResult {
    let file = create(c"f", &[b'a'; 100])?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    poke(memory, 3, b'Z');
    check_eq!(pread(file.as_raw_fd(), 2, 3)?, b"aZa");
    write(file.as_raw_fd(), b"tail")?;
    check_eq!(peek(memory, 100), b't');
    // What is written behind the end is not part of the file.
    poke(memory, 200, b'Q');
    check_eq!(std::fs::metadata("f")?.len(), 104);
    unmap(memory, PAGE)?;
    check_eq!(std::fs::read("f")?[3], b'Z');
    Ok(())
}

fn shared_mappings_of_one_file_agree() -> CaseResult {
    let file = create(c"f", &[0; 8192])?;
    let other = open(c"f", libc::O_RDWR, 0)?;
    let a = map(2 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    let b = map(PAGE, RW, libc::MAP_SHARED, other.as_raw_fd(), PAGE as i64)?;
    let private = map(PAGE, RW, libc::MAP_PRIVATE, file.as_raw_fd(), PAGE as i64)?;
    poke(a, PAGE + 9, 42);
    check_eq!((peek(b, 9), peek(private, 9)), (42, 42));
    poke(b, 10, 43);
    check_eq!(peek(a, PAGE + 10), 43);
    poke(private, 11, 44);
    check_eq!(peek(a, PAGE + 11), 0);
    Ok(())
}

fn offset_maps_the_middle() -> CaseResult {
    let mut data = vec![0u8; 4 * PAGE];
    data.chunks_mut(PAGE).enumerate().for_each(|(i, chunk)| chunk.fill(i as u8 + 1));
    let file = create(c"f", &data)?;
    let memory = map(2 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 2 * PAGE as i64)?;
    check_eq!((peek(memory, 0), peek(memory, PAGE)), (3, 4));
    Ok(())
}

fn tail_of_the_last_page_is_zero() -> CaseResult {
    let file = create(c"f", &[7; 10])?;
    for flags in [libc::MAP_PRIVATE, libc::MAP_SHARED] {
        let memory = map(PAGE, libc::PROT_READ, flags, file.as_raw_fd(), 0)?;
        check_eq!((peek(memory, 9), peek(memory, 10), peek(memory, PAGE - 1)), (7, 0, 0));
    }
    Ok(())
}

fn access_mode_of_the_descriptor_is_checked() -> CaseResult {
    create(c"f", b"data")?;
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    let writer = open(c"f", libc::O_WRONLY, 0)?;
    expect_errno!(map(PAGE, RW, libc::MAP_SHARED, reader.as_raw_fd(), 0), libc::EACCES);
    map(PAGE, RW, libc::MAP_PRIVATE, reader.as_raw_fd(), 0)?;
    expect_errno!(map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, writer.as_raw_fd(), 0), libc::EACCES);
    expect_errno!(map(PAGE, libc::PROT_WRITE, libc::MAP_SHARED, writer.as_raw_fd(), 0), libc::EACCES);
    Ok(())
}

fn mapping_outlives_descriptor_and_name() -> CaseResult {
    let file = create(c"f", b"still here")?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    drop(file);
    sys!(unlink(c"f".as_ptr()))?;
    check_eq!(peek(memory, 0), b's');
    poke(memory, 0, b'S');
    check_eq!(peek(memory, 0), b'S');
    Ok(())
}

fn fixed_replaces() -> CaseResult {
    let memory = anonymous(3, RW)?;
    for page in 0..3 {
        poke(memory, page * PAGE, 1);
    }
    let middle = memory as usize + PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    check_eq!(map_at(middle, PAGE, RW, flags, -1, 0)? as usize, middle);
    check_eq!([0, 1, 2].map(|page| peek(memory, page * PAGE)), [1, 0, 1]);
    Ok(())
}

fn fixed_noreplace_is_eexist() -> CaseResult {
    let memory = anonymous(3, RW)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    expect_errno!(map_at(memory as usize + PAGE, PAGE, RW, flags, -1, 0), libc::EEXIST);
    unmap(memory.wrapping_add(PAGE), PAGE)?;
    expect_errno!(map_at(memory as usize + PAGE, 2 * PAGE, RW, flags, -1, 0), libc::EEXIST);
    check_eq!(map_at(memory as usize + PAGE, PAGE, RW, flags, -1, 0)? as usize, memory as usize + PAGE);
    Ok(())
}

fn hint_is_taken_when_free() -> CaseResult {
    let memory = anonymous(4, RW)?;
    let hint = memory as usize + PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    check!(map_at(hint, PAGE, RW, flags, -1, 0)? as usize != hint);
    unmap(memory, 4 * PAGE)?;
    check_eq!(map_at(hint + 5, PAGE, RW, flags, -1, 0)? as usize, hint);
    Ok(())
}

fn low_addresses_and_the_top_are_refused() -> CaseResult {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let top = 0x7fff_ffff_f000usize;
    expect_errno!(map_at(top, PAGE, RW, flags, -1, 0), libc::ENOMEM);
    expect_errno!(map_at(top - PAGE, 2 * PAGE, RW, flags, -1, 0), libc::ENOMEM);
    expect_errno!(map_at(0xffff_8000_0000_0000, PAGE, RW, flags, -1, 0), libc::ENOMEM);
    Ok(())
}

fn munmap_splits() -> CaseResult {
    let memory = anonymous(5, RW)?;
    for page in 0..5 {
        poke(memory, page * PAGE, page as u8);
    }
    unmap(memory.wrapping_add(PAGE), 2 * PAGE)?;
    check_eq!((peek(memory, 0), peek(memory, 3 * PAGE), peek(memory, 4 * PAGE)), (0, 3, 4));
    check!(touch(memory as usize + PAGE, Access::Read)?.is_some());
    check!(touch(memory as usize + 3 * PAGE - 1, Access::Read)?.is_some());
    // A range with holes, and beyond, is unmapped as a whole.
    unmap(memory, 5 * PAGE)?;
    check!(touch(memory as usize + 4 * PAGE, Access::Read)?.is_some());
    Ok(())
}

fn munmap_of_nothing_and_bad_ranges() -> CaseResult {
    let memory = anonymous(1, RW)?;
    unmap(memory, PAGE)?;
    unmap(memory, PAGE)?;
    expect_errno!(unmap(memory.wrapping_add(1), PAGE), libc::EINVAL);
    expect_errno!(unmap(memory, 0), libc::EINVAL);
    expect_errno!(raw!(SYS_munmap(0x7fff_ffff_f000u64, 2 * PAGE)), libc::EINVAL);
    expect_errno!(raw!(SYS_munmap(memory, usize::MAX)), libc::EINVAL);
    // A length is rounded up.
    let memory = anonymous(1, RW)?;
    unmap(memory, 1)?;
    check!(touch(memory as usize + 100, Access::Read)?.is_some());
    Ok(())
}
