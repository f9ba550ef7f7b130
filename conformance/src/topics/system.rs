//! uname(2), sysinfo(2), getrandom(2), prctl(2), personality(2), unknown calls.

use super::limits::{affinity, text};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{monotonic_ns, raw, sys, zeroed};
use crate::util::me;

topic!(system: [
    uname_tells_linux,
    hostname_and_domainname,
    sysinfo_is_plausible,
    getrandom_gives_different_bytes,
    getrandom_checks,
    dev_random_and_urandom,
    prctl_names_and_unknown,
    personality_is_kept,
    membarrier_commands,
    getpid_never_changes,
    restart_syscall_and_unknown_numbers,
    rseq_or_enosys,
    cpu_count_by_sysfs_or_affinity,
]);

fn uname_tells_linux() -> CaseResult {
    let mut name: libc::utsname = zeroed();
    raw!(SYS_uname(&raw mut name))?;
    check_eq!((text(&name.sysname).as_str(), text(&name.machine).as_str()), ("Linux", "x86_64"));
    let release = text(&name.release);
    let major = release.split('.').next().and_then(|n| n.parse::<u32>().ok());
    check!(major.is_some_and(|n| n >= 4), "{release}");
    check_eq!(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(), release);
    check_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim(), text(&name.nodename));
    check!(std::fs::read_to_string("/proc/version")?.starts_with(&format!("Linux version {release}")));
    expect_errno!(raw!(SYS_uname(8)), libc::EFAULT);
    Ok(())
}

fn hostname_and_domainname() -> CaseResult {
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(raw!(SYS_sethostname(c"x".as_ptr(), 1)), libc::EPERM);
        expect_errno!(raw!(SYS_setdomainname(c"x".as_ptr(), 1)), libc::EPERM);
        Ok(())
    })
}

fn sysinfo_is_plausible() -> CaseResult {
    let mut info: libc::sysinfo = zeroed();
    raw!(SYS_sysinfo(&raw mut info))?;
    let unit = u64::from(info.mem_unit);
    check!(info.uptime >= 0 && unit > 0 && info.procs > 0);
    check!(info.totalram * unit >= 1 << 24 && info.freeram <= info.totalram);
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = uptime.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(-10.0);
    check!((seconds - info.uptime as f64).abs() < 3.0, "{uptime:?} and {}", info.uptime);
    Ok(())
}

fn getrandom_gives_different_bytes() -> CaseResult {
    let (mut a, mut b) = ([0u8; 64], [0u8; 64]);
    for flags in [0, libc::GRND_NONBLOCK, libc::GRND_RANDOM, 4] {
        check_eq!(raw!(SYS_getrandom(a.as_mut_ptr(), 64, flags))?, 64);
        check_eq!(raw!(SYS_getrandom(b.as_mut_ptr(), 64, flags))?, 64);
        check!(a != b && a != [0; 64]);
    }
    let mut large = vec![0u8; 100_000];
    check_eq!(raw!(SYS_getrandom(large.as_mut_ptr(), 100_000, 0))?, 100_000);
    check!(large[99_000..].iter().any(|byte| *byte != 0));
    Ok(())
}

fn getrandom_checks() -> CaseResult {
    let mut a = [0u8; 8];
    expect_errno!(raw!(SYS_getrandom(a.as_mut_ptr(), 8, 0x100)), libc::EINVAL);
    expect_errno!(raw!(SYS_getrandom(a.as_mut_ptr(), 8, 2 | 4)), libc::EINVAL);
    expect_errno!(raw!(SYS_getrandom(8, 8, 0)), libc::EFAULT);
    check_eq!(raw!(SYS_getrandom(8, 0, 0))?, 0);
    Ok(())
}

fn dev_random_and_urandom() -> CaseResult {
    use std::io::Read;
    for path in ["/dev/random", "/dev/urandom"] {
        let mut file = std::fs::File::open(path)?;
        let (mut a, mut b) = ([0u8; 32], [0u8; 32]);
        file.read_exact(&mut a)?;
        file.read_exact(&mut b)?;
        check!(a != b);
    }
    Ok(())
}

fn prctl_names_and_unknown() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_NAME, c"short".as_ptr()))?;
    let mut name = [0xffu8; 16];
    raw!(SYS_prctl(libc::PR_GET_NAME, name.as_mut_ptr()))?;
    check_eq!(&name[..6], b"short\0");
    check_eq!(std::fs::read_to_string("/proc/self/comm")?, "short\n");
    expect_errno!(raw!(SYS_prctl(99_999, 0, 0, 0, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_prctl(libc::PR_SET_NAME, 8)), libc::EFAULT);
    check_eq!(raw!(SYS_prctl(libc::PR_GET_TIMERSLACK))?, 50_000);
    Ok(())
}

fn personality_is_kept() -> CaseResult {
    check_eq!(raw!(SYS_personality(0xffff_ffffu32))?, 0);
    in_child(|| {
        const NO_RANDOMIZE: u32 = 0x004_0000;
        check_eq!(raw!(SYS_personality(NO_RANDOMIZE))?, 0);
        check_eq!(raw!(SYS_personality(0xffff_ffffu32))?, i64::from(NO_RANDOMIZE));
        Ok(())
    })
}

fn membarrier_commands() -> CaseResult {
    // Either it exists and says what it can do, or it does not.
    match raw!(SYS_membarrier(0, 0, 0)) {
        Ok(commands) => {
            check!(commands > 0);
            expect_errno!(raw!(SYS_membarrier(0x4000_0000, 0, 0)), libc::EINVAL);
            // MEMBARRIER_CMD_PRIVATE_EXPEDITED needs to be registered first.
            if commands & 8 != 0 {
                expect_errno!(raw!(SYS_membarrier(8, 0, 0)), libc::EPERM);
                raw!(SYS_membarrier(16, 0, 0))?;
                raw!(SYS_membarrier(8, 0, 0))?;
            }
        }
        Err(error) => check_eq!(error.errno, libc::ENOSYS),
    }
    Ok(())
}

fn getpid_never_changes() -> CaseResult {
    let start = monotonic_ns();
    for _ in 0..10_000 {
        check_eq!(raw!(SYS_getpid())?, i64::from(me()));
    }
    check!(monotonic_ns() - start < 10_000_000_000);
    Ok(())
}

fn restart_syscall_and_unknown_numbers() -> CaseResult {
    expect_errno!(raw!(SYS_restart_syscall()), libc::EINTR);
    for number in [500, 1000, 0x4000_0000, i64::MAX, -1, -4096] {
        expect_errno!(crate::sys::syscall(number, &[1, 2, 3]), libc::ENOSYS);
    }
    // Calls that Linux has given up long ago.
    expect_errno!(raw!(SYS_uselib(c"x".as_ptr())), libc::ENOSYS);
    for number in [174, 177, 178, 180, 181, 182, 183, 184, 185, 236] {
        expect_errno!(crate::sys::syscall(number, &[0; 6]), libc::ENOSYS);
    }
    Ok(())
}

fn rseq_or_enosys() -> CaseResult {
    // A wrong length is wrong whether libc has registered an area already or not.
    let outcome = raw!(SYS_rseq(16, 1, 0, 0));
    check!(
        outcome.is_err_and(|error| matches!(error.errno, libc::EINVAL | libc::ENOSYS | libc::EBUSY)),
        "{outcome:?}"
    );
    Ok(())
}

fn cpu_count_by_sysfs_or_affinity() -> CaseResult {
    let (_, mask) = affinity()?;
    let allowed: u32 = mask.iter().map(|word| word.count_ones()).sum();
    let configured = sys!(sysconf(libc::_SC_NPROCESSORS_ONLN))?;
    check!(configured >= i64::from(allowed), "{configured} online, {allowed} allowed");
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    check_eq!(info.lines().filter(|line| line.starts_with("processor")).count() as i64, configured);
    Ok(())
}
