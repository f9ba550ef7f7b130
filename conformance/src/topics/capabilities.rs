//! capabilities(7), prctl(2), no_new_privs.

use super::creds::{uids, setresuid};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{SysError, raw, stat, sys};
use crate::util::{create, status_field};

topic!(capabilities: [
    leaving_root_drops_capabilities,
    keepcaps_keeps_permitted,
    seteuid_drops_and_restores_effective,
    capget_and_capset_versions,
    capset_cannot_add,
    bounding_set_shrinks_only,
    ambient_capabilities,
    capability_of_a_single_override,
    no_new_privs_stays,
    securebits_noroot,
    dumpable,
    ids_are_of_all_threads_by_libc_and_of_one_by_the_call,
    proc_status_tells_ids,
    new_files_belong_to_the_fs_ids,
]);

/// (effective, permitted, inheritable), as masks.
fn capabilities() -> Result<(u64, u64, u64), SysError> {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    raw!(SYS_capget(header.as_ptr(), data.as_mut_ptr()))?;
    let word = |low: usize| u64::from(data[low]) | u64::from(data[low + 3]) << 32;
    Ok((word(0), word(1), word(2)))
}

fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<i64, SysError> {
    let header = [0x2008_0522u32, 0];
    let words = [effective, permitted, inheritable];
    let data: Vec<u32> = words.map(|w| w as u32).into_iter().chain(words.map(|w| (w >> 32) as u32)).collect();
    raw!(SYS_capset(header.as_ptr(), data.as_ptr()))
}

const CHOWN: u64 = 1;
const DAC_OVERRIDE: u64 = 1 << 1;
const KILL: u64 = 1 << 5;

fn leaving_root_drops_capabilities() -> CaseResult {
    in_child(|| {
        let (effective, permitted, _) = capabilities()?;
        check!(effective & CHOWN != 0 && permitted & CHOWN != 0);
        setresuid(1000, 1000, 1000)?;
        check_eq!(capabilities()?, (0, 0, 0));
        Ok(())
    })
}

fn keepcaps_keeps_permitted() -> CaseResult {
    in_child(|| {
        let (_, permitted, _) = capabilities()?;
        check_eq!(raw!(SYS_prctl(libc::PR_GET_KEEPCAPS))?, 0);
        raw!(SYS_prctl(libc::PR_SET_KEEPCAPS, 1))?;
        setresuid(1000, 1000, 1000)?;
        check_eq!(capabilities()?, (0, permitted, 0));
        set_capabilities(CHOWN, permitted, 0)?;
        create(c"/dev/shm/guest-keepcaps", b"")?;
        sys!(chown(c"/dev/shm/guest-keepcaps".as_ptr(), 5, 5))?;
        set_capabilities(DAC_OVERRIDE | 1 << 3, permitted, 0)?;
        sys!(unlink(c"/dev/shm/guest-keepcaps".as_ptr()))?;
        expect_errno!(raw!(SYS_prctl(libc::PR_SET_KEEPCAPS, 2)), libc::EINVAL);
        Ok(())
    })
}

fn seteuid_drops_and_restores_effective() -> CaseResult {
    in_child(|| {
        let before = capabilities()?;
        sys!(seteuid(1000))?;
        check_eq!(capabilities()?, (0, before.1, before.2));
        sys!(seteuid(0))?;
        check_eq!(capabilities()?.0, before.1);
        Ok(())
    })
}

fn capget_and_capset_versions() -> CaseResult {
    let mut header = [0x1111_1111u32, 0];
    let mut data = [0u32; 6];
    expect_errno!(raw!(SYS_capget(header.as_mut_ptr(), data.as_mut_ptr())), libc::EINVAL);
    // It says what it would have liked.
    check_eq!(header[0], 0x2008_0522);
    let mut header = [0u32, 0];
    raw!(SYS_capget(header.as_mut_ptr(), 0))?;
    check_eq!(header[0], 0x2008_0522);
    let header = [0x2008_0522u32, 32_100];
    expect_errno!(raw!(SYS_capget(header.as_ptr(), data.as_mut_ptr())), libc::ESRCH);
    let header = [0x2008_0522u32, 1];
    expect_errno!(raw!(SYS_capset(header.as_ptr(), data.as_ptr())), libc::EPERM);
    Ok(())
}

fn capset_cannot_add() -> CaseResult {
    in_child(|| {
        set_capabilities(CHOWN, CHOWN | KILL, 0)?;
        check_eq!(capabilities()?, (CHOWN, CHOWN | KILL, 0));
        expect_errno!(set_capabilities(CHOWN, CHOWN | DAC_OVERRIDE, 0), libc::EPERM);
        expect_errno!(set_capabilities(DAC_OVERRIDE, CHOWN, 0), libc::EPERM);
        set_capabilities(KILL, KILL, 0)?;
        expect_errno!(set_capabilities(CHOWN, CHOWN, 0), libc::EPERM);
        Ok(())
    })
}

fn bounding_set_shrinks_only() -> CaseResult {
    in_child(|| {
        check_eq!(raw!(SYS_prctl(libc::PR_CAPBSET_READ, 0))?, 1);
        raw!(SYS_prctl(libc::PR_CAPBSET_DROP, 0))?;
        check_eq!(raw!(SYS_prctl(libc::PR_CAPBSET_READ, 0))?, 0);
        expect_errno!(raw!(SYS_prctl(libc::PR_CAPBSET_READ, 64)), libc::EINVAL);
        // What one has is not taken away.
        check!(capabilities()?.0 & CHOWN != 0);
        setresuid(1000, 1000, 1000)?;
        expect_errno!(raw!(SYS_prctl(libc::PR_CAPBSET_DROP, 1)), libc::EPERM);
        Ok(())
    })
}

fn ambient_capabilities() -> CaseResult {
    in_child(|| {
        let ambient =
            |what: i32, cap: i32| raw!(SYS_prctl(libc::PR_CAP_AMBIENT, what, cap, 0, 0));
        expect_errno!(ambient(libc::PR_CAP_AMBIENT_RAISE, 0), libc::EPERM);
        let (effective, permitted, _) = capabilities()?;
        set_capabilities(effective, permitted, CHOWN)?;
        ambient(libc::PR_CAP_AMBIENT_RAISE, 0)?;
        check_eq!(ambient(libc::PR_CAP_AMBIENT_IS_SET, 0)?, 1);
        check_eq!(status_field("CapAmb")?, "0000000000000001");
        // What is not inheritable any more is not ambient either.
        set_capabilities(effective, permitted, 0)?;
        check_eq!(ambient(libc::PR_CAP_AMBIENT_IS_SET, 0)?, 0);
        ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
        expect_errno!(ambient(99, 0), libc::EINVAL);
        Ok(())
    })
}

fn capability_of_a_single_override() -> CaseResult {
    create(c"f", b"")?;
    sys!(chown(c"f".as_ptr(), 1234, 1234))?;
    sys!(chmod(c"f".as_ptr(), 0))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        // Still user 0, but without the power.
        set_capabilities(0, 0, 0)?;
        expect_errno!(crate::sys::open(c"f", libc::O_RDONLY, 0), libc::EACCES);
        expect_errno!(sys!(chmod(c"f".as_ptr(), 0o644)), libc::EPERM);
        expect_errno!(setresuid(5, 5, 5), libc::EPERM);
        expect_errno!(sys!(chroot(c".".as_ptr())), libc::EPERM);
        expect_errno!(sys!(mknod(c"n".as_ptr(), libc::S_IFCHR, libc::makedev(1, 3))), libc::EPERM);
        Ok(())
    })
}

fn no_new_privs_stays() -> CaseResult {
    in_child(|| {
        let set = |value: i32| raw!(SYS_prctl(libc::PR_SET_NO_NEW_PRIVS, value, 0, 0, 0));
        let get = || raw!(SYS_prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        check_eq!(get()?, 0);
        set(1)?;
        check_eq!(get()?, 1);
        expect_errno!(set(0), libc::EINVAL);
        expect_errno!(raw!(SYS_prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)), libc::EINVAL);
        check_eq!(status_field("NoNewPrivs")?, "1");
        in_child(|| {
            check_eq!(get()?, 1);
            Ok(())
        })
    })
}

fn securebits_noroot() -> CaseResult {
    const NOROOT: i32 = 1;
    const NO_SETUID_FIXUP: i32 = 4;
    in_child(|| {
        check_eq!(raw!(SYS_prctl(libc::PR_GET_SECUREBITS))?, 0);
        raw!(SYS_prctl(libc::PR_SET_SECUREBITS, NOROOT | NO_SETUID_FIXUP))?;
        check_eq!(raw!(SYS_prctl(libc::PR_GET_SECUREBITS))?, 5);
        let before = capabilities()?;
        // Without the fix-up, a change of users leaves capabilities alone.
        setresuid(1000, 1000, 1000)?;
        check_eq!(capabilities()?, before);
        Ok(())
    })
}

fn dumpable() -> CaseResult {
    in_child(|| {
        check_eq!(raw!(SYS_prctl(libc::PR_GET_DUMPABLE))?, 1);
        raw!(SYS_prctl(libc::PR_SET_DUMPABLE, 0))?;
        check_eq!(raw!(SYS_prctl(libc::PR_GET_DUMPABLE))?, 0);
        expect_errno!(raw!(SYS_prctl(libc::PR_SET_DUMPABLE, 2)), libc::EINVAL);
        raw!(SYS_prctl(libc::PR_SET_DUMPABLE, 1))?;
        // A change of users takes it away.
        setresuid(1000, 1000, 1000)?;
        check_eq!(raw!(SYS_prctl(libc::PR_GET_DUMPABLE))?, 0);
        Ok(())
    })
}

fn ids_are_of_all_threads_by_libc_and_of_one_by_the_call() -> CaseResult {
    in_child(|| {
        let seen = std::thread::spawn(|| {
            setresuid(70, 70, 70)?;
            uids()
        });
        check_eq!(seen.join().map_err(|_| "panic")??, [70; 3]);
        check_eq!(uids()?, [0; 3]);
        Ok(())
    })
}

fn proc_status_tells_ids() -> CaseResult {
    in_child(|| {
        raw!(SYS_setgroups(2, [8u32, 9].as_ptr()))?;
        raw!(SYS_setresgid(4, 5, 6))?;
        setresuid(1, 2, 3)?;
        check_eq!(status_field("Uid")?, "1\t2\t3\t2");
        check_eq!(status_field("Gid")?, "4\t5\t6\t5");
        check_eq!(status_field("Groups")?, "8 9");
        check_eq!(status_field("CapEff")?, "0000000000000000");
        Ok(())
    })
}

fn new_files_belong_to_the_fs_ids() -> CaseResult {
    sys!(chmod(c".".as_ptr(), 0o777))?;
    in_child(|| {
        raw!(SYS_setfsgid(300))?;
        raw!(SYS_setfsuid(200))?;
        create(c"f", b"")?;
        let st = stat(c"f")?;
        check_eq!((st.st_uid, st.st_gid), (200, 300));
        Ok(())
    })
}
