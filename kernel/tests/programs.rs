//! Small programs, given as machine code, on the `ptrace` platform: starting, forking, executing, exiting.
#![expect(clippy::tests_outside_test_module, reason = "integration tests")]
mod world;

use abi::Signal;
use kernel::ExitStatus;
use world::{Asm, World};

#[test]
fn exit_42() {
    let program = Asm::new().exit(42);
    assert_eq!(World::new().run(&program), ExitStatus::Exited(42));
}

#[test]
fn a_parent_waits_for_its_child() {
    // fork(); the child exits with 7; the parent waits and exits with what wait4 stored, moved down, plus one.
    let child = Asm::new().exit(7);
    let parent = Asm::new().wait4_any().load_status().add_eax(1).exit_eax();
    let program = Asm::new().fork().if_zero(&child).then(&parent);
    assert_eq!(World::new().run(&program), ExitStatus::Exited(8));
}

#[test]
fn vfork_shares_memory_and_waits() {
    // The child stores 5 where the parent, which runs after it, finds it.
    let child = Asm::new().store_scratch(5).exit(0);
    let program = Asm::new().vfork().if_zero(&child).load_scratch().exit_eax();
    assert_eq!(World::new().run(&program), ExitStatus::Exited(5));
}

#[test]
fn fork_copies_memory() {
    let child = Asm::new().store_scratch(5).exit(0);
    let program = Asm::new().store_scratch(3).fork().if_zero(&child).wait4_any().load_scratch().exit_eax();
    assert_eq!(World::new().run(&program), ExitStatus::Exited(3));
}

#[test]
fn a_thread_ends_the_process() {
    let child = Asm::new().exit_group(9);
    let program = Asm::new().thread().if_zero(&child).pause_for_ever();
    assert_eq!(World::new().run(&program), ExitStatus::Exited(9));
}

#[test]
fn a_fault_kills() {
    let program = Asm::new().store_to_null().exit(0);
    let killed = ExitStatus::Signaled { signal: Signal::SIGSEGV, core: false };
    assert_eq!(World::new().run(&program), killed);
}

#[test]
fn execve_replaces_the_program_and_its_threads() {
    let world = World::new();
    world.add_program(Asm::new().exit(11));
    let child = Asm::new().exec();
    let program = Asm::new().thread().if_zero(&child).pause_for_ever();
    assert_eq!(world.run(&program), ExitStatus::Exited(11));
}

#[test]
fn a_child_that_waits_dies_with_init() {
    let child = Asm::new().pause_for_ever();
    let program = Asm::new().fork().if_zero(&child).exit(4);
    let world = World::new();
    assert_eq!(world.run(&program), ExitStatus::Exited(4));
    assert_eq!(world.kernel().task_count(), 0);
}

#[test]
fn orphans_come_to_init() {
    // The child forks and exits; init waits for both, the second of which it never made.
    let grandchild = Asm::new().exit(2);
    let child = Asm::new().fork().if_zero(&grandchild).exit(1);
    let program = Asm::new()
        .fork()
        .if_zero(&child)
        .store_scratch(0)
        .wait4_any()
        .load_status()
        .add_to_scratch()
        .wait4_any()
        .load_status()
        .add_to_scratch()
        .load_scratch()
        .exit_eax();
    assert_eq!(World::new().run(&program), ExitStatus::Exited(3));
}

/// Runs a program and checks that nothing of it is left.
fn leaves_nothing(program: &Asm) {
    let world = World::new();
    assert_eq!(world.run(program), ExitStatus::Exited(0));
    let kernel = std::sync::Arc::downgrade(world.kernel());
    drop(world);
    // The host thread of init lets go of the kernel as the last thing it does.
    let start = std::time::Instant::now();
    while kernel.strong_count() > 0 && start.elapsed().as_secs() < 5 {
        std::thread::yield_now();
    }
    assert_eq!(kernel.strong_count(), 0, "a process keeps the kernel");
}

#[test]
fn many_children() {
    let child = Asm::new().exit(0);
    leaves_nothing(&Asm::new().repeat(200, &Asm::new().fork().if_zero(&child).wait4_any()).exit(0));
}

#[test]
fn many_vforks() {
    let child = Asm::new().exit(0);
    leaves_nothing(&Asm::new().repeat(200, &Asm::new().vfork().if_zero(&child).wait4_any()).exit(0));
}

#[test]
fn many_threads() {
    let child = Asm::new().exit(0);
    leaves_nothing(&Asm::new().repeat(200, &Asm::new().thread().if_zero(&child)).exit_group(0));
}

#[test]
fn many_zombies_end_with_init() {
    let child = Asm::new().exit(0);
    leaves_nothing(&Asm::new().repeat(50, &Asm::new().fork().if_zero(&child)).exit(0));
}

/// `xorshift64*`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below")
    }
    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        let index = self.below(values.len());
        *values.get(index).expect("it is below")
    }
}

/// A program with some fields of its headers replaced by numbers that matter, or any, and sometimes cut.
fn broken(program: &[u8], random: &mut Random) -> Vec<u8> {
    const HEADERS: usize = 64 + 2 * 56;
    let mut bytes = program.to_vec();
    for _ in 0..=random.below(4) {
        let any = random.next();
        let values =
            [0, 1, 2, 3, 6, 56, 4095, 4096, u64::MAX, 1 << 47, (1 << 47) - 4096, 1 << 63, any, any >> 40];
        let value = random.of(&values).to_le_bytes();
        let width: usize = random.of(&[1, 2, 4, 8]);
        // Behind what makes it an ELF file, mostly.
        let start = if random.below(8) == 0 { 0 } else { 16 };
        let at = start + random.below((HEADERS - start) / width) * width;
        bytes.splice(at..at + width, value.into_iter().take(width));
    }
    if random.below(8) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

#[test]
fn broken_programs_are_loaded_or_refused() {
    let program = Asm::new().exit(0).elf();
    let mut random = Random(0x5eed);
    let world = World::new();
    let files: Vec<_> = (0..250).map(|_| broken(&program, &mut random)).collect();
    let ExitStatus::Exited(loaded) = world.load(files) else { panic!("the task that loads them died") };
    assert!((10..240).contains(&loaded), "{loaded} of 250: the breakage is too harmless or too great");
}
