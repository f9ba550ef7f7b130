//! setresuid(2), setgroups(2), capabilities(7), prctl(2), no_new_privs.

use crate::case::{CaseResult, topic};
use crate::check::{check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{SysError, raw, sys};
use crate::util::create;

topic!(creds: [
    root_may_become_anyone,
    others_may_swap_their_ids_only,
    minus_one_keeps_an_id,
    setuid_of_root_sets_all_three,
    seteuid_keeps_the_way_back,
    setreuid_sets_the_saved_id,
    group_calls_follow_the_same_rules,
    setgroups_and_getgroups,
    supplementary_groups_grant_access,
    setfsuid_gives_the_old_one,
]);

pub(super) fn uids() -> Result<[u32; 3], SysError> {
    let mut ids = [0u32; 3];
    let [r, e, s] = &mut ids;
    sys!(getresuid(r, e, s))?;
    Ok(ids)
}

fn gids() -> Result<[u32; 3], SysError> {
    let mut ids = [0u32; 3];
    let [r, e, s] = &mut ids;
    sys!(getresgid(r, e, s))?;
    Ok(ids)
}

pub(super) fn setresuid(r: i32, e: i32, s: i32) -> Result<i64, SysError> {
    raw!(SYS_setresuid(r, e, s))
}

fn root_may_become_anyone() -> CaseResult {
    in_child(|| {
        setresuid(1, 2, 3)?;
        check_eq!(uids()?, [1, 2, 3]);
        Ok(())
    })
}

fn others_may_swap_their_ids_only() -> CaseResult {
    in_child(|| {
        setresuid(1, 2, 3)?;
        expect_errno!(setresuid(4, -1, -1), libc::EPERM);
        expect_errno!(setresuid(-1, 0, -1), libc::EPERM);
        check_eq!(uids()?, [1, 2, 3]);
        setresuid(3, 1, 2)?;
        check_eq!(uids()?, [3, 1, 2]);
        setresuid(1, 1, 1)?;
        expect_errno!(setresuid(-1, 3, -1), libc::EPERM);
        Ok(())
    })
}

fn minus_one_keeps_an_id() -> CaseResult {
    in_child(|| {
        setresuid(-1, 7, -1)?;
        check_eq!(uids()?, [0, 7, 0]);
        setresuid(-1, -1, -1)?;
        check_eq!(uids()?, [0, 7, 0]);
        Ok(())
    })
}

fn setuid_of_root_sets_all_three() -> CaseResult {
    in_child(|| {
        raw!(SYS_setuid(55))?;
        check_eq!(uids()?, [55; 3]);
        expect_errno!(raw!(SYS_setuid(0)), libc::EPERM);
        expect_errno!(raw!(SYS_setuid(-1)), libc::EINVAL);
        Ok(())
    })?;
    in_child(|| {
        setresuid(1, 2, 3)?;
        // Without the capability it sets the effective one only.
        raw!(SYS_setuid(3))?;
        check_eq!(uids()?, [1, 3, 3]);
        Ok(())
    })
}

fn seteuid_keeps_the_way_back() -> CaseResult {
    in_child(|| {
        sys!(seteuid(1000))?;
        check_eq!(uids()?, [0, 1000, 0]);
        sys!(seteuid(0))?;
        check_eq!(uids()?, [0, 0, 0]);
        Ok(())
    })
}

fn setreuid_sets_the_saved_id() -> CaseResult {
    in_child(|| {
        raw!(SYS_setreuid(5, 6))?;
        check_eq!(uids()?, [5, 6, 6]);
        raw!(SYS_setreuid(6, 5))?;
        check_eq!(uids()?, [6, 5, 5]);
        expect_errno!(raw!(SYS_setreuid(0, -1)), libc::EPERM);
        Ok(())
    })
}

fn group_calls_follow_the_same_rules() -> CaseResult {
    in_child(|| {
        raw!(SYS_setresgid(1, 2, 3))?;
        check_eq!(gids()?, [1, 2, 3]);
        setresuid(1000, 1000, 1000)?;
        expect_errno!(raw!(SYS_setgid(9)), libc::EPERM);
        raw!(SYS_setgid(3))?;
        check_eq!(gids()?, [1, 3, 3]);
        raw!(SYS_setregid(3, 1))?;
        check_eq!(gids()?, [3, 1, 1]);
        expect_errno!(raw!(SYS_setresgid(-1, 0, -1)), libc::EPERM);
        Ok(())
    })
}

fn setgroups_and_getgroups() -> CaseResult {
    in_child(|| {
        let groups = [30u32, 10, 20];
        raw!(SYS_setgroups(3, groups.as_ptr()))?;
        check_eq!(raw!(SYS_getgroups(0, 0))?, 3);
        let mut got = [0u32; 8];
        check_eq!(raw!(SYS_getgroups(8, got.as_mut_ptr()))?, 3);
        check_eq!(got[..3], [10, 20, 30]);
        expect_errno!(raw!(SYS_getgroups(2, got.as_mut_ptr())), libc::EINVAL);
        expect_errno!(raw!(SYS_getgroups(-1, 0)), libc::EINVAL);
        expect_errno!(raw!(SYS_setgroups(65_537, 0)), libc::EINVAL);
        expect_errno!(raw!(SYS_setgroups(2, 8)), libc::EFAULT);
        setresuid(1000, 1000, 1000)?;
        expect_errno!(raw!(SYS_setgroups(0, 0)), libc::EPERM);
        Ok(())
    })
}

fn supplementary_groups_grant_access() -> CaseResult {
    create(c"f", b"")?;
    sys!(chown(c"f".as_ptr(), 0, 4444))?;
    sys!(chmod(c"f".as_ptr(), 0o040))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    for (groups, errno) in [([4444u32, 1], 0), ([2, 1], libc::EACCES)] {
        in_child(|| {
            raw!(SYS_setgroups(2, groups.as_ptr()))?;
            raw!(SYS_setresgid(9, 9, 9))?;
            setresuid(1000, 1000, 1000)?;
            let outcome = crate::sys::open(c"f", libc::O_RDONLY, 0);
            check_eq!(outcome.map_or_else(|error| error.errno, |_| 0), errno);
            Ok(())
        })?;
    }
    Ok(())
}

fn setfsuid_gives_the_old_one() -> CaseResult {
    in_child(|| {
        check_eq!(raw!(SYS_setfsuid(500))?, 0);
        check_eq!(raw!(SYS_setfsuid(-1))?, 500);
        check_eq!(uids()?, [0, 0, 0]);
        // It follows the effective one.
        sys!(seteuid(600))?;
        check_eq!(raw!(SYS_setfsuid(-1))?, 600);
        check_eq!(raw!(SYS_setfsgid(-1))?, 0);
        Ok(())
    })
}
