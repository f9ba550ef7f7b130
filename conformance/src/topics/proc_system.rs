//! proc(5): what concerns the system, and access to the files of others.

use super::procfs::{text};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::memory::{PAGE, RW, anonymous, poke, post, shared_words, wait_for_word};
use crate::sys::{open, raw, read, stat, sys, write};
use crate::util::{me, read_some, status_field};
use std::ffi::CString;
use std::os::fd::AsRawFd;

topic!(proc_system: [
    mounts_and_mountinfo,
    meminfo_and_stat,
    uptime_and_loadavg,
    filesystems_lists_what_is_mounted,
    comm_can_be_written,
    mem_reads_and_writes,
    oom_score_adj,
    coredump_filter,
    vdso_in_maps,
    task_directory,
    process_files_of_the_dead,
    wrong_names_are_enoent,
    files_are_read_in_pieces,
    proc_cannot_be_changed,
    sys_values,
    limits_and_cgroup_and_io,
    permissions_of_others,
    magic_links_open_what_has_no_name,
    smaps_and_pagemap,
    net_directory,
]);

fn mounts_and_mountinfo() -> CaseResult {
    check_eq!(std::fs::read_link("/proc/mounts")?.to_string_lossy(), "self/mounts");
    let mounts = text("/proc/mounts")?;
    for line in mounts.lines() {
        check_eq!(line.split(' ').count(), 6);
    }
    let kind_of = |place: &str| {
        let mut of = mounts.lines().filter(|line| line.split(' ').nth(1) == Some(place));
        of.next_back().and_then(|line| line.split(' ').nth(2)).unwrap_or_default().to_owned()
    };
    check_eq!(kind_of("/proc"), "proc");
    check_eq!(kind_of("/dev/pts"), "devpts");
    check_eq!(kind_of("/tmp"), "tmpfs");
    let info = text("/proc/self/mountinfo")?;
    check_eq!(info.lines().count(), mounts.lines().count());
    check!(info.lines().all(|line| line.contains(" - ")));
    Ok(())
}

fn meminfo_and_stat() -> CaseResult {
    let meminfo = text("/proc/meminfo")?;
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
    };
    let (total, free) = (field("MemTotal:").unwrap_or(0), field("MemFree:").unwrap_or(u64::MAX));
    check!(total > 1 << 14 && free <= total, "{meminfo}");
    check!(field("MemAvailable:").is_some() && field("SwapTotal:").is_some() && field("Cached:").is_some());
    let stat = text("/proc/stat")?;
    check!(stat.starts_with("cpu  "), "{stat}");
    for name in ["cpu0 ", "intr ", "ctxt ", "btime ", "processes "] {
        check!(stat.lines().any(|line| line.starts_with(name)), "no {name}");
    }
    Ok(())
}

fn uptime_and_loadavg() -> CaseResult {
    let uptime = text("/proc/uptime")?;
    check_eq!(uptime.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).count(), 2);
    let load = text("/proc/loadavg")?;
    let words: Vec<&str> = load.split_whitespace().collect();
    check_eq!(words.len(), 5);
    check!(words[..3].iter().all(|word| word.parse::<f64>().is_ok()) && words[3].contains('/'));
    Ok(())
}

fn filesystems_lists_what_is_mounted() -> CaseResult {
    let known = text("/proc/filesystems")?;
    for name in ["tmpfs", "proc", "devpts"] {
        check!(known.lines().any(|line| line == format!("nodev\t{name}")), "{known}");
    }
    Ok(())
}

fn comm_can_be_written() -> CaseResult {
    std::fs::write("/proc/self/comm", "new-name")?;
    check_eq!(text("/proc/self/comm")?, "new-name\n");
    let mut name = [0u8; 16];
    raw!(SYS_prctl(libc::PR_GET_NAME, name.as_mut_ptr()))?;
    check_eq!(&name[..9], b"new-name\0");
    Ok(())
}

fn mem_reads_and_writes() -> CaseResult {
    let memory = anonymous(2, RW)?;
    poke(memory, 10, 42);
    let mem = open(c"/proc/self/mem", libc::O_RDWR, 0)?;
    let mut byte = [0u8; 1];
    sys!(pread(mem.as_raw_fd(), byte.as_mut_ptr().cast(), 1, memory as i64 + 10))?;
    check_eq!(byte, [42]);
    sys!(pwrite(mem.as_raw_fd(), [43u8].as_ptr().cast(), 1, memory as i64 + 10))?;
    check_eq!(crate::memory::peek(memory, 10), 43);
    crate::memory::unmap(memory, 2 * PAGE)?;
    expect_errno!(sys!(pread(mem.as_raw_fd(), byte.as_mut_ptr().cast(), 1, memory as i64)), libc::EIO);
    Ok(())
}

fn oom_score_adj() -> CaseResult {
    let before = text("/proc/self/oom_score_adj")?;
    check!(before.trim().parse::<i32>().is_ok());
    std::fs::write("/proc/self/oom_score_adj", "500")?;
    check_eq!(text("/proc/self/oom_score_adj")?, "500\n");
    let file = open(c"/proc/self/oom_score_adj", libc::O_WRONLY, 0)?;
    expect_errno!(write(file.as_raw_fd(), b"1001"), libc::EINVAL);
    check!(text("/proc/self/oom_score")?.trim().parse::<i32>().is_ok());
    Ok(())
}

fn task_directory() -> CaseResult {
    let words = shared_words()?;
    let thread = std::thread::spawn(move || {
        words[1].store(raw!(SYS_gettid()).unwrap_or(0) as u32, std::sync::atomic::Ordering::SeqCst);
        post(&words[0]);
        wait_for_word(&words[2], 1);
    });
    wait_for_word(&words[0], 1);
    let tid = words[1].load(std::sync::atomic::Ordering::SeqCst);
    let mut tids = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        tids.push(entry?.file_name().to_string_lossy().into_owned());
    }
    tids.sort();
    let mut expected = vec![me().to_string(), tid.to_string()];
    expected.sort();
    check_eq!(tids, expected);
    check!(text(&format!("/proc/self/task/{tid}/stat"))?.starts_with(&format!("{tid} (")));
    check_eq!(status_field("Threads")?, "2");
    // A thread has a directory of its own that no listing shows.
    check!(text(&format!("/proc/{tid}/status"))?.contains(&format!("Tgid:\t{}", me())));
    post(&words[2]);
    thread.join().map_err(|_| "panic")?;
    Ok(())
}

fn process_files_of_the_dead() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        0
    })?;
    let status = open(&CString::new(format!("/proc/{child}/status"))?, libc::O_RDONLY, 0)?;
    let dir = open(&CString::new(format!("/proc/{child}"))?, libc::O_RDONLY, 0)?;
    post(&words[0]);
    wait_for(child)?;
    expect_errno!(read_some(status.as_raw_fd(), 100), libc::ESRCH);
    expect_errno!(raw!(SYS_openat(dir.as_raw_fd(), c"stat".as_ptr(), 0, 0)), libc::ESRCH);
    Ok(())
}

fn coredump_filter() -> CaseResult {
    let path = "/proc/self/coredump_filter";
    check_eq!(text(path)?, "00000033\n");
    std::fs::write(path, "0x7f\n")?;
    check_eq!(text(path)?, "0000007f\n");
    std::fs::write(path, "017")?;
    check_eq!(text(path)?, "0000000f\n");
    let child = fork_child(|| i32::from(text(path).is_ok_and(|text| text != "0000000f\n")))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(std::fs::write(path, "many").map_err(|e| e.raw_os_error()), Err(Some(libc::EINVAL)));
    Ok(())
}

fn vdso_in_maps() -> CaseResult {
    // SAFETY: takes any number.
    let at = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let maps = text("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap_or_default();
    if at == 0 {
        check_eq!(line, "");
    } else {
        check!(line.starts_with(&format!("{at:x}-")) && line.contains(" r-xp "), "{at:x}: {line}");
    }
    Ok(())
}

fn wrong_names_are_enoent() -> CaseResult {
    for path in [c"/proc/0", c"/proc/01", c"/proc/-1", c"/proc/99999999999", c"/proc/self/nothing", c"/proc/1x"] {
        expect_errno!(stat(path), libc::ENOENT);
    }
    expect_errno!(open(c"/proc/self/fd/9999", libc::O_RDONLY, 0), libc::ENOENT);
    expect_errno!(stat(c"/proc/meminfo/x"), libc::ENOTDIR);
    Ok(())
}

fn files_are_read_in_pieces() -> CaseResult {
    let whole = text("/proc/self/maps")?;
    let file = open(c"/proc/self/maps", libc::O_RDONLY, 0)?;
    let mut pieces = Vec::new();
    loop {
        let piece = read_some(file.as_raw_fd(), 37)?;
        if piece.is_empty() {
            break;
        }
        pieces.extend(piece);
    }
    let lines = |text: &str| text.lines().map(|line| line[..20].to_owned()).collect::<Vec<_>>();
    check_eq!(lines(&String::from_utf8_lossy(&pieces)).first(), lines(&whole).first());
    check!(pieces.ends_with(b"\n"));
    let file = open(c"/proc/version", libc::O_RDONLY, 0)?;
    let mut head = [0u8; 5];
    check_eq!(sys!(pread(file.as_raw_fd(), head.as_mut_ptr().cast(), 5, 6))?, 5);
    check_eq!(&head, b"versi");
    check_eq!(sys!(lseek(file.as_raw_fd(), 6, libc::SEEK_SET))?, 6);
    check_eq!(read(file.as_raw_fd(), &mut head)?, 5);
    check_eq!(&head, b"versi");
    check_eq!(stat(c"/proc/version")?.st_size, 0);
    Ok(())
}

fn proc_cannot_be_changed() -> CaseResult {
    let create_flags = libc::O_CREAT | libc::O_WRONLY;
    expect_errno!(open(c"/proc/new", create_flags, 0o644), libc::ENOENT);
    expect_errno!(sys!(mkdir(c"/proc/new".as_ptr(), 0o755)), libc::ENOENT);
    expect_errno!(sys!(unlink(c"/proc/meminfo".as_ptr())), libc::EPERM);
    check!(sys!(chmod(c"/proc/self/stat".as_ptr(), 0o777)).is_err());
    Ok(())
}

fn sys_values() -> CaseResult {
    for path in ["kernel/pid_max", "vm/overcommit_memory", "fs/file-max", "kernel/ngroups_max"] {
        let value = text(&format!("/proc/sys/{path}"))?;
        check!(value.trim().parse::<i64>().is_ok(), "{path}: {value:?}");
    }
    check_eq!(text("/proc/sys/kernel/ostype")?, "Linux\n");
    let uuid = text("/proc/sys/kernel/random/uuid")?;
    check_eq!(uuid.len(), 37);
    check!(uuid != text("/proc/sys/kernel/random/uuid")?);
    let boot = text("/proc/sys/kernel/random/boot_id")?;
    check_eq!(boot, text("/proc/sys/kernel/random/boot_id")?);
    Ok(())
}

fn limits_and_cgroup_and_io() -> CaseResult {
    let limits = text("/proc/self/limits")?;
    check_eq!(limits.lines().count(), 17);
    check!(limits.starts_with("Limit                     Soft Limit           Hard Limit           Units"));
    for line in text("/proc/self/cgroup")?.lines() {
        check_eq!(line.splitn(3, ':').count(), 3);
    }
    let io = text("/proc/self/io")?;
    check!(io.starts_with("rchar: ") && io.contains("write_bytes: "), "{io}");
    Ok(())
}

fn permissions_of_others() -> CaseResult {
    let parent = me();
    in_child(|| {
        sys!(setresgid(1000, 1000, 1000))?;
        sys!(setresuid(1000, 1000, 1000))?;
        let path = |name: &str| CString::new(format!("/proc/{parent}/{name}"));
        // Who may not trace a process may not look into it either.
        for name in ["mem", "environ", "maps"] {
            expect_errno!(open(&path(name)?, libc::O_RDONLY, 0), libc::EACCES);
        }
        let mut buf = [0u8; 100];
        for name in ["exe", "cwd", "root"] {
            let outcome = sys!(readlink(path(name)?.as_ptr(), buf.as_mut_ptr().cast(), 100));
            expect_errno!(outcome, libc::EACCES);
        }
        expect_errno!(open(&path("fd")?, libc::O_RDONLY, 0), libc::EACCES);
        for name in ["stat", "status", "cmdline", "comm", "limits"] {
            open(&path(name)?, libc::O_RDONLY, 0)?;
        }
        Ok(())
    })
}

fn magic_links_open_what_has_no_name() -> CaseResult {
    let (reader, writer) = crate::sys::pipe(0)?;
    write(writer.as_raw_fd(), b"hello")?;
    let path = CString::new(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
    let again = open(&path, libc::O_RDONLY, 0)?;
    check_eq!(read_some(again.as_raw_fd(), 10)?, b"hello");
    // A socket cannot be opened.
    let socket = crate::sys::owned(sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))?);
    let path = CString::new(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    expect_errno!(open(&path, libc::O_RDWR, 0), libc::ENXIO);
    let link = std::fs::read_link(path.to_string_lossy().as_ref())?;
    check!(link.to_string_lossy().starts_with("socket:["), "{link:?}");
    // One's own program, opened anew.
    let exe = open(c"/proc/self/exe", libc::O_RDONLY, 0)?;
    check_eq!(read_some(exe.as_raw_fd(), 4)?, b"\x7fELF");
    Ok(())
}

fn smaps_and_pagemap() -> CaseResult {
    let memory = anonymous(4, RW)? as usize;
    poke(memory as *mut u8, 0, 1);
    poke(memory as *mut u8, PAGE, 1);
    let smaps = text("/proc/self/smaps")?;
    check!(smaps.lines().filter(|line| line.starts_with("Size:")).count() > 3);
    check!(smaps.contains("Rss:") && smaps.contains("Private_Dirty:"));
    Ok(())
}

fn net_directory() -> CaseResult {
    let _socket = crate::sys::owned(sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))?);
    let unix = text("/proc/net/unix")?;
    check!(unix.starts_with("Num       RefCount Protocol Flags    Type St Inode Path"), "{unix}");
    check!(unix.lines().count() > 1);
    Ok(())
}
