//! proc(5).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{fork_child, in_child, wait_for};
use crate::memory::{PAGE, RW, anonymous, map, poke};
use crate::sys::{open, raw, stat, sys};
use crate::util::{create, me, status_field};
use std::ffi::CString;
use std::os::fd::AsRawFd;

topic!(procfs: [
    self_is_the_reader,
    thread_self_is_the_thread,
    directory_lists_processes,
    stat_fields,
    status_fields,
    statm_counts_pages,
    maps_of_known_mappings,
    maps_names_files,
    cmdline_of_a_kernel_view,
    environ_of_the_start,
    exe_cwd_root_links,
    fd_directory_and_fdinfo,
]);

pub(super) fn text(path: &str) -> Result<String, std::io::Error> {
    std::fs::read_to_string(path)
}

fn self_is_the_reader() -> CaseResult {
    check_eq!(std::fs::read_link("/proc/self")?.to_string_lossy(), me().to_string());
    in_child(|| {
        check_eq!(std::fs::read_link("/proc/self")?.to_string_lossy(), me().to_string());
        Ok(())
    })
}

fn thread_self_is_the_thread() -> CaseResult {
    let seen = std::thread::spawn(|| (raw!(SYS_gettid()), std::fs::read_link("/proc/thread-self")));
    let (tid, link) = seen.join().map_err(|_| "panic")?;
    check_eq!(link?.to_string_lossy(), format!("{}/task/{}", me(), tid?));
    Ok(())
}

fn directory_lists_processes() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    for name in [child.to_string(), me().to_string(), "self".into(), "meminfo".into(), "1".into()] {
        check!(names.contains(&name), "{name} is missing");
    }
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    expect_errno!(stat(&CString::new(format!("/proc/{child}"))?), libc::ENOENT);
    check!(stat(c"/proc")?.st_nlink > 2);
    Ok(())
}

fn stat_fields() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_NAME, c"od) d (x".as_ptr()))?;
    let stat = text("/proc/self/stat")?;
    let start = format!("{} (od) d (x) R {} ", me(), sys!(getppid())?);
    check!(stat.starts_with(&start), "{stat}");
    let rest: Vec<&str> = stat[stat.rfind(')').unwrap_or(0) + 2..].split_whitespace().collect();
    check_eq!(rest.len(), 50);
    check_eq!(rest[2], sys!(getpgrp())?.to_string());
    check_eq!(rest[3], sys!(getsid(0))?.to_string());
    check_eq!(rest[17], "1");
    let vsize: u64 = rest[20].parse().unwrap_or(0);
    check!(vsize > 1 << 16 && vsize.is_multiple_of(4096));
    Ok(())
}

fn status_fields() -> CaseResult {
    check_eq!(status_field("Pid")?, me().to_string());
    check_eq!(status_field("Tgid")?, me().to_string());
    check_eq!(status_field("PPid")?, sys!(getppid())?.to_string());
    check_eq!(status_field("Threads")?, "1");
    check!(status_field("State")?.starts_with('R'));
    check_eq!(status_field("TracerPid")?, "0");
    check!(status_field("VmRSS")?.ends_with("kB"));
    sys!(umask(0o123))?;
    check_eq!(status_field("Umask")?, "0123");
    crate::signal::block(&[libc::SIGUSR1])?;
    check_eq!(status_field("SigBlk")?, "0000000000000200");
    crate::signal::count_signal(libc::SIGHUP, 0)?;
    check_eq!(u64::from_str_radix(&status_field("SigCgt")?, 16).unwrap_or(0) & 1, 1);
    check_eq!(status_field("NSpid")?.split_whitespace().last(), Some(me().to_string().as_str()));
    Ok(())
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn statm_counts_pages() -> CaseResult {
    let before = numbers(&text("/proc/self/statm")?);
    check_eq!(before.len(), 7);
    let memory = anonymous(1000, RW)?;
    (0..1000).for_each(|page| poke(memory, page * PAGE, 1));
    let after = numbers(&text("/proc/self/statm")?);
    check!(after[0] >= before[0] + 1000, "size {} then {}", before[0], after[0]);
    check!(after[1] >= before[1] + 900, "resident {} then {}", before[1], after[1]);
    Ok(())
}

/// The line of /proc/self/maps that begins at an address.
fn maps_line(address: usize) -> CaseResult<String> {
    let maps = text("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.starts_with(&format!("{address:x}-")));
    line.map(str::to_owned).ok_or_else(|| format!("no mapping at {address:x}:\n{maps}").into())
}

fn maps_of_known_mappings() -> CaseResult {
    let guard = anonymous(5, libc::PROT_NONE)?;
    let memory = guard as usize + PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    for (prot, shown) in [(libc::PROT_READ, "r--p"), (RW, "rw-p"), (libc::PROT_READ | libc::PROT_EXEC, "r-xp")] {
        crate::memory::map_at(memory, 3 * PAGE, prot, flags, -1, 0)?;
        check_eq!(maps_line(memory)?.trim(), format!("{memory:x}-{:x} {shown} 00000000 00:00 0", memory + 3 * PAGE));
    }
    let maps = text("/proc/self/maps")?;
    let starts: Vec<u64> = maps
        .lines()
        .filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok())
        .collect();
    check!(starts.windows(2).all(|pair| pair[0] < pair[1]), "not in order");
    Ok(())
}

fn maps_names_files() -> CaseResult {
    let file = create(c"a file", &[1; 3 * PAGE])?;
    let memory = map(2 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), PAGE as i64)? as usize;
    let line = maps_line(memory)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let st = crate::sys::fstat(file.as_raw_fd())?;
    let device = format!("{:02x}:{:02x}", libc::major(st.st_dev), libc::minor(st.st_dev));
    check_eq!(words[1..5], ["rw-s", "00001000", device.as_str(), st.st_ino.to_string().as_str()]);
    check!(line.ends_with(&format!(" {}/a file", std::env::current_dir()?.display())), "{line}");
    sys!(unlink(c"a file".as_ptr()))?;
    check!(maps_line(memory)?.ends_with("/a file (deleted)"));
    Ok(())
}

fn cmdline_of_a_kernel_view() -> CaseResult {
    let line = std::fs::read("/proc/self/cmdline")?;
    let shown: Vec<String> =
        line.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    let args: Vec<String> = std::env::args().collect();
    check_eq!(shown[..args.len()], args[..]);
    check_eq!(line.last(), Some(&0));
    Ok(())
}

fn environ_of_the_start() -> CaseResult {
    let environ = std::fs::read("/proc/self/environ")?;
    for (name, value) in std::env::vars() {
        let entry = format!("{name}={value}");
        check!(environ.split(|b| *b == 0).any(|e| e == entry.as_bytes()), "{entry}");
    }
    Ok(())
}

fn exe_cwd_root_links() -> CaseResult {
    let exe = std::fs::read_link("/proc/self/exe")?;
    check!(exe.is_absolute() && exe.file_name().is_some_and(|name| name == "guest"), "{exe:?}");
    check_eq!(std::fs::read_link("/proc/self/cwd")?, std::env::current_dir()?);
    check_eq!(std::fs::read_link("/proc/self/root")?, std::path::Path::new("/"));
    check_eq!(stat(c"/proc/self/cwd")?.st_ino, stat(c".")?.st_ino);
    crate::util::mkdir(c"d")?;
    sys!(chdir(c"d".as_ptr()))?;
    sys!(rmdir(c"../d".as_ptr()))?;
    check!(std::fs::read_link("/proc/self/cwd")?.to_string_lossy().ends_with("/d (deleted)"));
    Ok(())
}

fn fd_directory_and_fdinfo() -> CaseResult {
    let file = create(c"f", b"0123456789")?;
    sys!(lseek(file.as_raw_fd(), 4, libc::SEEK_SET))?;
    let info = text(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    check_eq!(field("pos:"), Some("4".to_owned()));
    let flags = field("flags:").and_then(|value| i32::from_str_radix(&value, 8).ok()).unwrap_or(-1);
    check_eq!(flags & (libc::O_ACCMODE | libc::O_APPEND), libc::O_RDWR);
    let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    check_eq!(stat(&link)?.st_ino, crate::sys::fstat(file.as_raw_fd())?.st_ino);
    let mut st: libc::stat = crate::sys::zeroed();
    sys!(lstat(link.as_ptr(), &mut st))?;
    check_eq!(st.st_mode, libc::S_IFLNK | 0o700);
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    let link = CString::new(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
    sys!(lstat(link.as_ptr(), &mut st))?;
    check_eq!(st.st_mode, libc::S_IFLNK | 0o500);
    Ok(())
}
