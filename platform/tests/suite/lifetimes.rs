//! Stubs come and go, threads share them, and nothing is left behind.
#![expect(unsafe_code, reason = "credentials of one thread are changed by raw system calls")]
use super::common::*;
use super::new;
use platform::{Interrupt, Platform, PlatformError, Trap};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const FOREVER: Duration = Duration::from_secs(20);
/// `1: jmp 1b`
const LOOP: &[u8] = b"\xeb\xfe";
/// `1: syscall; jmp 1b`
const CALLS: &[u8] = b"\x0f\x05\xeb\xfc";

fn numbers_in(dir: &str) -> BTreeSet<i32> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok()).collect()
}

/// The child processes of all threads of this process.
fn children() -> BTreeSet<i32> {
    let tasks = numbers_in("/proc/self/task");
    let read = |task: &i32| std::fs::read_to_string(format!("/proc/self/task/{task}/children"));
    let lists: Vec<String> = tasks.iter().filter_map(|task| read(task).ok()).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

/// Runs the test in a process of its own, where nobody else has children or descriptors.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os("ALONE").is_some() {
        return test();
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let status = command.args(["--exact", &name, "--nocapture"]).env("ALONE", "1").status();
    assert!(status.unwrap().success());
}

#[test]
fn two_hundred_spaces_leave_nothing() {
    alone("two_hundred_spaces_leave_nothing", || {
        let before = (numbers_in("/proc/self/fd"), children());
        let platform = new();
        let memory = Memory::new(CALLS);
        for round in 0..200 {
            let mut contexts: Vec<_> = (0..=round % 3).map(|_| context(&platform, &memory)).collect();
            for context in &mut contexts {
                assert_eq!(context.switch(&mut start()).unwrap(), Trap::Syscall);
            }
        }
        assert!(children().len() <= 8, "the dead are buried as others are born");
        assert_eq!(numbers_in("/proc/self/task").len(), 2, "no thread of ours");
        let spaces: Vec<_> = (0..200).map(|_| memory.space(&platform)).collect();
        assert!(children().len() >= 201);
        drop((spaces, memory, platform));
        assert_eq!((numbers_in("/proc/self/fd"), children()), before);
    });
}

#[test]
fn contexts_of_one_space_come_and_go() {
    let platform = new();
    let memory = Memory::new(CALLS);
    let space = memory.space(&platform);
    for _ in 0..100 {
        let mut context = space.clone().new_context().unwrap();
        assert_eq!(context.switch(&mut start()).unwrap(), Trap::Syscall);
    }
}

#[test]
fn two_threads_share_a_space() {
    let platform = new();
    // 1: lock incq 0x500000; dec %rdi; jnz 1b; syscall
    let memory = Memory::new(b"\xf0\x48\xff\x04\x25\0\0\x50\0\x48\xff\xcf\x75\xf2\x0f\x05");
    let space = memory.space(&platform);
    thread::scope(|scope| {
        for _ in 0..2 {
            let space = space.clone();
            scope.spawn(move || {
                let mut context = space.new_context().unwrap();
                let mut regs = abi::Registers { rdi: 100_000, ..start() };
                assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
            });
        }
    });
    assert_eq!(memory.data(0), 200_000);
}

type Traps = mpsc::Receiver<Result<Trap, PlatformError>>;

/// A thread that runs `code` in a space of its own and tells of each trap.
fn guest(
    platform: &Arc<dyn Platform>,
    code: &[u8],
    switches: u32,
) -> (Arc<dyn Interrupt>, Traps, thread::JoinHandle<()>) {
    let memory = Memory::new(code);
    let space = memory.space(platform);
    let (handle, gave) = mpsc::channel();
    let (tell, traps) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut context = space.new_context().unwrap();
        handle.send(context.interrupter()).unwrap();
        let mut regs = start();
        for _ in 0..switches {
            if tell.send(context.switch(&mut regs)).is_err() {
                return;
            }
        }
    });
    (gave.recv().unwrap(), traps, thread)
}

#[test]
fn no_interrupt_is_lost() {
    const ROUNDS: u32 = 10_000;
    let platform = new();
    let (interrupt, traps, thread) = guest(&platform, LOOP, ROUNDS);
    for _ in 0..ROUNDS {
        interrupt.interrupt();
        let trap = traps.recv_timeout(FOREVER).expect("the guest stops");
        assert_eq!(trap.unwrap(), Trap::Interrupted);
    }
    thread.join().unwrap();
    interrupt.interrupt();
}

#[test]
fn interrupts_among_system_calls() {
    let platform = new();
    let (interrupt, traps, thread) = guest(&platform, CALLS, u32::MAX);
    for _ in 0..2_000 {
        while traps.try_recv().is_ok() {}
        interrupt.interrupt();
        while traps.recv_timeout(FOREVER).expect("the guest runs").unwrap() != Trap::Interrupted {}
    }
    drop(traps);
    thread.join().unwrap();
}

#[test]
fn an_interrupt_before_the_switch_counts_once() {
    let platform = new();
    let memory = Memory::new(CALLS);
    let mut context = context(&platform, &memory);
    let mut regs = start();
    context.interrupter().interrupt();
    context.interrupter().interrupt();
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Interrupted);
    assert_eq!(regs, start(), "it did not run");
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
}

/// Kills a stub, and tells the platform as the host tells a sentry.
fn kill(platform: &Arc<dyn Platform>, pid: i32) {
    let id = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).unwrap();
    if platform.name() == "systrap" {
        let end = nix::sys::wait::WaitPidFlag::WEXITED
            | nix::sys::wait::WaitPidFlag::WNOWAIT
            | nix::sys::wait::WaitPidFlag::__WALL;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(id), end).unwrap();
        platform.child_ended(pid, platform::DEATH_SIGNAL);
    }
}

fn pid_of(error: &PlatformError) -> i32 {
    match error {
        PlatformError::StubDied { pid, .. } => *pid,
        other => panic!("{other}"),
    }
}

#[test]
fn a_killed_stub_is_told() {
    alone("a_killed_stub_is_told", || {
        let platform = new();
        let told = Arc::new(AtomicU32::new(0));
        let hook = Arc::clone(&told);
        platform.on_stub_death(Box::new(move |_| {
            hook.fetch_add(1, Ordering::Relaxed);
        }));
        let template = children();
        let memory = Memory::new(CALLS);
        let space = memory.space(&platform);
        let mut context = space.clone().new_context().unwrap();
        assert_eq!(context.switch(&mut start()).unwrap(), Trap::Syscall);
        // The other one is the stub made ahead.
        let stub = *children().difference(&template).min().unwrap();
        kill(&platform, stub);
        let pid = pid_of(&context.switch(&mut start()).unwrap_err());
        assert_eq!(pid, stub);
        assert_eq!(pid, pid_of(&context.switch(&mut start()).unwrap_err()));
        pid_of(&space.unmap(CODE, PAGE).unwrap_err());
        pid_of(&space.clone().new_context().unwrap_err());
        // Who traces its guests finds out at each call; who does not is told by the host, once.
        let least = if platform.name() == "ptrace" { 3 } else { 1 };
        assert!(told.load(Ordering::Relaxed) >= least);
        drop((context, space));
        // While it runs, too.
        let (_, traps, thread) = guest(&platform, LOOP, 1);
        kill(&platform, *children().difference(&template).min().unwrap());
        pid_of(&traps.recv_timeout(FOREVER).expect("the switch ends").unwrap_err());
        thread.join().unwrap();
        drop(platform);
        assert!(children().is_empty());
    });
}

#[test]
fn signals_from_the_host_do_not_reach_the_guest() {
    alone("signals_from_the_host_do_not_reach_the_guest", || {
        let platform = new();
        let template = children();
        let (interrupt, traps, thread) = guest(&platform, LOOP, 1);
        for pid in children().difference(&template) {
            // SIGKILL and SIGSTOP need no description; the host makes those of faults fatal to a process that no
            // debugger holds by its first thread.
            let spared = [libc::SIGKILL, libc::SIGSTOP, 4, 5, 7, 8, 11, 31];
            for signal in (1..=31).filter(|s| !spared.contains(s)) {
                let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal).unwrap();
            }
        }
        traps.recv_timeout(Duration::from_millis(200)).unwrap_err();
        interrupt.interrupt();
        assert_eq!(traps.recv_timeout(FOREVER).expect("it stops").unwrap(), Trap::Interrupted);
        thread.join().unwrap();
    });
}

#[test]
fn works_without_privileges() {
    alone("works_without_privileges", || {
        let nobody = 65534_u32;
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            // SAFETY: the call takes numbers and changes this thread's credentials only.
            let result = unsafe { libc::syscall(call, nobody, nobody, nobody) };
            if result != 0 {
                assert_ne!(nix::unistd::geteuid().as_raw(), 0);
            }
        }
        let platform = new();
        assert_eq!(run(&platform, CALLS).0, Trap::Syscall);
    });
}
