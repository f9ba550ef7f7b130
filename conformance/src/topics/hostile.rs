//! Processes that run wild in the part of the address space where a kernel that runs them in user space may have its own:
//! they may die, and nobody else does.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, fork_child, wait_for};
use crate::fault::{Access, touch};
use crate::memory::PAGE;
use crate::sys::{raw, sys};
use crate::util::{me, poll_one};

topic!(hostile: [
    garbage_in_the_last_gigabyte,
    jumps_into_the_last_gigabyte,
    threads_against_each_other,
]);

/// The last gigabyte below the end of user space.
const FROM: usize = 0x7fff_c000_0000;
const TO: usize = 0x7fff_ffff_f000;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }
}

/// The pages of the range that can be touched so.
fn pages(access: Access) -> CaseResult<Vec<usize>> {
    // What lies there is small and at the start, or at steps of 64 KiB from there.
    let near = (FROM..FROM + (4 << 20)).step_by(PAGE);
    let mut found = Vec::new();
    for page in near {
        if touch(page, access)?.is_none() {
            found.push(page);
        }
    }
    Ok(found)
}

/// Lets children do something until they die, or for a short while.
fn children(count: u64, body: impl Fn(&mut Random)) -> CaseResult {
    for seed in 1..=count {
        let child = fork_child(|| {
            // With all that it may clone, which is not to run on beside the next.
            let _ = sys!(setpgid(0, 0));
            body(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            0
        })?;
        let pidfd = raw!(SYS_pidfd_open(child, 0))? as i32;
        let ended = poll_one(pidfd, libc::POLLIN, 150)? != 0;
        if !ended {
            sys!(kill(child, libc::SIGKILL))?;
        }
        let _ = sys!(kill(-child, libc::SIGKILL));
        let how = wait_for(child)?;
        check!(matches!(how, Ended::Exited(_) | Ended::Killed(_)), "{how:?}");
        sys!(close(pidfd))?;
        // Who waits is as before.
        check_eq!(raw!(SYS_getpid())?, i64::from(me()));
        check_eq!(raw!(SYS_getuid())?, 0);
    }
    let fresh = fork_child(|| i32::from(raw!(SYS_getpid()) != Ok(i64::from(me()))))?;
    check_eq!(wait_for(fresh)?, Ended::Exited(0));
    Ok(())
}

fn scribble(random: &mut Random, pages: &[usize], times: usize) {
    for _ in 0..times {
        if let Some(page) = pages.get(random.below(pages.len().max(1))) {
            let words = [8, 64, PAGE / 8][random.below(3)];
            let at = (page + 8 * random.below(words)) as *mut u64;
            let value = [0, 1, u64::MAX, random.0][random.below(4)];
            // SAFETY: this process owns nothing that it needs there; that it may die is the point.
            unsafe { at.write_volatile(value) };
        }
        if random.below(16) == 0 {
            let _ = raw!(SYS_getppid());
        }
    }
}

fn garbage_in_the_last_gigabyte() -> CaseResult {
    let writable = std::panic::catch_unwind(|| pages(Access::Write)).map_err(|_| "panic")??;
    children(20, |random| scribble(random, &writable, 2000))
}

/// Jumps to `at` with registers that say little, in the number of a futex wait or of something that must not be.
fn jump(at: usize, random: &mut Random) {
    let number = [202, 1, 9, 10, 11, 14, 56, 60, 231][random.below(9)];
    let area = FROM + 0x10_1000 + 64 * random.below(8);
    // SAFETY: nothing is expected to come back.
    unsafe {
        std::arch::asm!(
            "mov rbx, {rbx}", "mov rbp, rsi", "xor r10d, r10d", "push rcx", "jmp {at}",
            rbx = in(reg) random.0, at = in(reg) at, in("rax") number, in("rdi") area, in("rsi") random.below(3),
            in("rdx") random.below(3), in("rcx") random.0, options(noreturn),
        );
    }
}

fn jumps_into_the_last_gigabyte() -> CaseResult {
    let readable = pages(Access::Read)?;
    children(30, |random| {
        let page = readable.get(random.below(readable.len().max(1))).copied().unwrap_or(TO - PAGE);
        jump(page + random.below(0x400), random);
    })
}

fn threads_against_each_other() -> CaseResult {
    children(10, |random| {
        let seeds = [random.0 | 1, !random.0 | 1, random.0.rotate_left(9) | 1];
        std::thread::scope(|scope| {
            for seed in seeds {
                scope.spawn(move || {
                    let mut random = Random(seed);
                    // Found anew: the others' are there now.
                    let all: Vec<usize> = (1..4).map(|n| FROM + 0x10_0000 + n * 0x1000).collect();
                    let more = all.iter().flat_map(|page| (0..3).map(move |n| page + n * 0x2_0000)).collect::<Vec<_>>();
                    scribble(&mut random, &more, 5000);
                    jump(FROM + 0x10_0000 + random.below(0x500), &mut random);
                });
            }
        });
    })
}
