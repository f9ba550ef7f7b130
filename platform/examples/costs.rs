//! What a back end's operations cost here: prints the median of several batches, in nanoseconds.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people to run")]
#[path = "../tests/suite/common.rs"]
mod common;

use common::{CODE, DATA, Memory, NOTHING, PAGE, start};
use platform::{Access, Platform, Trap, ptrace::Ptrace};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

const BATCHES: usize = 9;

fn report(name: &str, times: u32, mut operation: impl FnMut()) {
    let mut medians: Vec<u128> = (0..BATCHES)
        .map(|_| {
            let from = Instant::now();
            for _ in 0..times {
                operation();
            }
            from.elapsed().as_nanos() / u128::from(times)
        })
        .collect();
    medians.sort_unstable();
    println!("{name:44} {:8} ns", medians.get(BATCHES / 2).copied().unwrap_or_default());
}

fn switches(platform: &Arc<dyn Platform>) {
    let memory = Memory::new(b"\x0f\x05\xeb\xfc");
    let mut context = common::context(platform, &memory);
    let mut regs = start();
    report("system call, result in rax", 2000, || {
        assert!(matches!(context.switch(&mut regs), Ok(Trap::Syscall)));
        regs.rax = regs.rax.wrapping_add(1);
    });
    // mov 0x600000,%eax
    let memory = Memory::new(b"\x8b\x04\x25\0\0\x60\0");
    let space = memory.space(platform);
    let mut context = Arc::clone(&space).new_context().expect("a context");
    let mut regs = start();
    report("fault, not resolved", 1000, || {
        assert!(matches!(context.switch(&mut regs), Ok(Trap::Fault { .. })));
    });
    report("map and unmap", 1000, || {
        space.map(NOTHING, PAGE, memory.0.as_fd(), PAGE, Access::READ_WRITE, true).expect("maps");
        space.unmap(NOTHING, PAGE).expect("unmaps");
    });
    report("protect", 1000, || space.protect(DATA, PAGE, Access::READ_WRITE).expect("protects"));
    report("save and load of the FPU state", 1000, || {
        let state = context.save_fpu().expect("saves");
        assert!(matches!(context.load_fpu(&state), Ok(true)));
    });
}

fn creation(platform: &Arc<dyn Platform>) {
    let memory = Memory::new(b"\x0f\x05");
    report("a space", 200, || drop(platform.new_address_space().expect("a space")));
    report("a space and a context", 200, || {
        let space = platform.new_address_space().expect("a space");
        drop(space.new_context().expect("a context"));
    });
    report("a space, 2 maps, a context, 1 system call", 200, || {
        let mut context = memory.space(platform).new_context().expect("a context");
        assert!(matches!(context.switch(&mut start()), Ok(Trap::Syscall)));
    });
    let space = memory.space(platform);
    report("a context of a space there", 200, || drop(Arc::clone(&space).new_context().expect("a context")));
    assert!(platform.user_range().contains(&CODE));
}

/// Wall time a system call when several guests make them back to back, each with `work` rounds of a loop before.
fn crowd(platform: &Arc<dyn Platform>, guests: u32, work: u64) {
    const CALLS: u32 = 2000;
    // 1: mov %rdi,%rcx; 2: loop 2b; syscall; jmp 1b
    let memory = Memory::new(b"\x48\x89\xf9\xe2\xfe\x0f\x05\xeb\xf7");
    report(&format!("{guests} guests, {work} rounds of work"), 1, || {
        std::thread::scope(|scope| {
            for _ in 0..guests {
                scope.spawn(|| {
                    let mut context = common::context(platform, &memory);
                    let mut regs = start();
                    for _ in 0..CALLS {
                        regs.rdi = work;
                        assert!(matches!(context.switch(&mut regs), Ok(Trap::Syscall)));
                    }
                });
            }
        });
    });
}

fn main() {
    report("the platform", 5, || drop(Ptrace::new().expect("a platform")));
    let platform = Ptrace::new().expect("a platform");
    creation(&platform);
    switches(&platform);
    println!("for 2000 system calls of each guest:");
    for (guests, work) in [(1, 1), (2, 1), (4, 1), (1, 10_000), (2, 10_000), (4, 10_000), (2, 1_000_000)] {
        crowd(&platform, guests, work);
    }
}
