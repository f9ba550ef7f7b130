//! Guests that write garbage wherever they can write in their stub, and jump wherever they can jump: they may die, and
//! nobody else.
#![expect(
    unsafe_code,
    reason = "the deaths of stubs are told by a real-time signal, which no crate waits for"
)]
use super::common::*;
use abi::Registers;
use platform::systrap::{Options, Systrap};
use platform::{AddressSpace, Context, Interrupt, Platform, PlatformError, Trap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Where stubs have their code, as in `layout.rs`.
const STUB: u64 = 0x7fff_c000_0000;
const STUB_LEN: u64 = 0x9000;
const REGIONS: u64 = STUB + 0x10_0000;
const STRIDE: u64 = 0x2_0000;
/// Behind a region's page of code, the memory that its thread shares with the sentry.
const AREA: u64 = 0x1000;

/// Writes `rbx` pseudo-random words, masked by `r9`, to offsets below `r8` from `rdi`; `rax` is the seed. Then a system
/// call, and again.
const WRITER: &[u8] = b"\x48\x89\xc1\x48\xc1\xe1\x0d\x48\x31\xc8\x48\x89\xc1\x48\xc1\xe9\x07\x48\x31\xc8\x48\x89\xc1\x48\xc1\
\xe1\x11\x48\x31\xc8\x48\x89\xc1\x48\xc1\xe9\x14\x4c\x21\xc1\x48\x83\xe1\xfc\x48\x89\xc2\x4c\x21\xca\x89\x14\x0f\x48\xff\xcb\
\x75\xc6\x0f\x05\xeb\xc2";
/// Copies a page from `rsi` to `rdi`, and makes a system call.
const COPIER: &[u8] = b"\x48\xc7\xc1\0\x10\0\0\xf3\xa4\x0f\x05";

/// `xorshift64*`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of(&mut self, values: &[u64]) -> u64 {
        let index = usize::try_from(self.below(values.len() as u64)).unwrap();
        values[index]
    }

    /// An address that matters, or any number.
    fn word(&mut self) -> u64 {
        let region = REGIONS + self.below(3) * STRIDE;
        let random = self.next();
        let near = region + AREA + self.below(0x200);
        let inside = region + self.below(STRIDE);
        let code = STUB + self.below(STUB_LEN);
        self.of(&[
            0,
            1,
            2,
            3,
            random,
            random >> 32,
            near,
            near & !7,
            inside,
            inside & !0xf,
            code,
            CODE,
            DATA + 0x800,
        ])
    }

    /// Where to run: any instruction of the stub, its system calls, or code of the guest's.
    fn place(&mut self, calls: &[u64]) -> u64 {
        let page = REGIONS + self.below(2) * STRIDE + self.below(0x600);
        let shared = STUB + 0x8000 + self.below(0x600);
        let mapper = STUB + self.below(0x180);
        let call = self.of(calls);
        self.of(&[page, page, shared, mapper, call, call + STUB + 0x8000, REGIONS + call, CODE, NOTHING])
    }

    fn registers(&mut self, calls: &[u64]) -> Registers {
        let number = self.of(&[202, 202, 14, 9, 10, 11, 56, 1, 60, 231, 317, 131, 15]);
        let call = self.below(2) == 0;
        Registers {
            rax: if call { number } else { self.word() },
            rdi: self.word(),
            rsi: if call { self.below(3) } else { self.word() },
            rdx: self.word(),
            r10: if call { 0 } else { self.word() },
            rbx: self.word(),
            rbp: self.word(),
            rcx: self.word(),
            r8: self.word(),
            r9: self.word(),
            r11: self.word(),
            r12: self.word(),
            r13: self.word(),
            r14: self.word(),
            r15: self.word(),
            rsp: self.word(),
            rip: self.place(calls),
            eflags: self.next() & !0x100,
            fs_base: self.word(),
            gs_base: self.word(),
            ..Registers::default()
        }
    }
}

fn code() -> Vec<u8> {
    let mut code = WRITER.to_vec();
    code.resize(1024, 0xcc);
    code.extend(COPIER);
    code
}

/// The offsets of `syscall` instructions in a page of a stub, as the guest reads it.
fn calls_at(platform: &Arc<dyn Platform>, page: u64) -> Vec<u64> {
    let memory = Memory::new(&code());
    let mut context = context(platform, &memory);
    let mut regs = Registers { rip: CODE + 1024, rsi: page, rdi: DATA, ..start() };
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    let bytes: Vec<u8> = (0..PAGE).step_by(8).flat_map(|at| memory.data(at).to_le_bytes()).collect();
    let found: Vec<u64> =
        (0_u64..).zip(bytes.windows(2)).filter(|(_, w)| *w == b"\x0f\x05").map(|(at, _)| at).collect();
    assert!(found.len() > 3, "{found:?}");
    found
}

/// A thread that runs as it is told by a seed, for so many switches.
fn attack(space: Arc<dyn AddressSpace>, seed: u64, calls: &[u64], tell: &mpsc::Sender<Arc<dyn Interrupt>>) {
    let mut random = Random(seed | 1);
    let Ok(mut context) = space.clone().new_context() else { return };
    tell.send(context.interrupter()).ok();
    for _ in 0..40 {
        let mut regs = random.registers(calls);
        if random.below(3) == 0 {
            // The words that the sentry and the thread share, or all of it.
            let masks = [0, 1, 3, 7, 0xff, 0xffff_ffff];
            let spans = [0x3f, 0x1ff, 0xffff];
            let to = REGIONS + random.below(3) * STRIDE + AREA;
            regs = Registers { rax: random.next() | 1, rbx: 1 + random.below(4000), rdi: to, ..regs };
            (regs.r8, regs.r9, regs.rip) = (random.of(&spans), random.of(&masks), CODE);
        }
        if step(&mut *context, &mut regs, &mut random).is_err() {
            return;
        }
    }
}

fn step(context: &mut dyn Context, regs: &mut Registers, random: &mut Random) -> Result<(), PlatformError> {
    context.switch(regs)?;
    if random.below(4) == 0 {
        let state = context.save_fpu()?;
        context.load_fpu(&state)?;
    }
    if random.below(8) == 0 {
        context.answer_ids(Some((1, 1)));
    }
    Ok(())
}

/// Takes the signals that tell of stubs' ends, which this thread has blocked, until none comes for long.
fn bury(platform: &dyn Platform, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        // SAFETY: siginfo and sets are plain data, of which all zero is a value.
        let (mut info, mut set) = unsafe { std::mem::zeroed::<(libc::siginfo_t, libc::sigset_t)>() };
        // SAFETY: the set is valid.
        unsafe { libc::sigaddset(&raw mut set, platform::DEATH_SIGNAL) };
        let limit = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        // SAFETY: three valid places.
        let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const limit) };
        if signal == platform::DEATH_SIGNAL {
            // SAFETY: the signal of a child's end has this member.
            platform.child_ended(unsafe { info.si_pid() }, signal);
        }
    }
}

fn block_deaths() {
    // SAFETY: a set is plain data, of which all zero is a value.
    let mut set = unsafe { std::mem::zeroed::<libc::sigset_t>() };
    // SAFETY: the set is valid.
    unsafe { libc::sigaddset(&raw mut set, platform::DEATH_SIGNAL) };
    // SAFETY: as above; the mask is this thread's.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

fn storm() {
    const TIME: Duration = Duration::from_secs(8);
    block_deaths();
    let options = Options { patience: Duration::from_millis(20), ..Options::default() };
    let platform = Systrap::new(options).unwrap();
    let calls: Vec<u64> =
        [STUB, STUB + 0x8000].into_iter().flat_map(|page| calls_at(&platform, page)).collect();
    let bystander = Memory::new(b"\x0f\x05\xeb\xfc");
    let mut honest = context(&platform, &bystander);
    let stop = AtomicBool::new(false);
    let end = Instant::now() + TIME;
    let mut seeds = 0_u64;
    thread::scope(|scope| {
        scope.spawn(|| bury(&*platform, &stop));
        while Instant::now() < end {
            seeds += 1;
            round(&platform, seeds.wrapping_mul(0x9e37_79b9_7f4a_7c15), &calls);
            let mut regs = Registers { rdi: seeds, r15: !seeds, ..start() };
            assert_eq!(honest.switch(&mut regs).unwrap(), Trap::Syscall, "seed {seeds}");
            assert_eq!((regs.rdi, regs.r15, regs.rip), (seeds, !seeds, CODE + 2));
            assert_eq!(bystander.data(0), 0);
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(seeds > 10, "{seeds}");
    drop(honest);
    assert_eq!(run(&platform, b"\x0f\x05").0, Trap::Syscall);
}

/// Two threads of one guest against each other and the sentry, which interrupts them until both have done their worst.
fn round(platform: &Arc<dyn Platform>, seed: u64, calls: &[u64]) {
    let memory = Memory::new(&code());
    let Ok(space) = platform.new_address_space() else { panic!("no space for seed {seed:x}") };
    use std::os::fd::AsFd;
    space.map(CODE, PAGE, memory.0.as_fd(), 0, platform::Access::READ_EXECUTE, false).unwrap();
    space.map(DATA, PAGE, memory.0.as_fd(), PAGE, platform::Access::READ_WRITE, true).unwrap();
    let (tell, told) = mpsc::channel();
    let mut handles: Vec<Arc<dyn Interrupt>> = Vec::new();
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let (space, tell) = (Arc::clone(&space), tell.clone());
                scope.spawn(move || attack(space, seed.wrapping_add(number << 32), calls, &tell))
            })
            .collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            handles.extend(told.try_iter());
            handles.iter().for_each(|handle| handle.interrupt());
            thread::yield_now();
            assert!(began.elapsed() < Duration::from_secs(30), "seed {seed:x} hangs the sentry");
        }
    });
    // It may be dead; unmapping is done, or an error.
    space.unmap(CODE, PAGE).ok();
}

#[test]
fn no_guest_harms_the_sentry() {
    if std::env::var_os("ALONE").is_some() {
        return storm();
    }
    // On the main thread of a process of its own, whose mask decides whether deaths are told.
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let args = ["--exact", "hostile::no_guest_harms_the_sentry", "--nocapture", "--test-threads=1"];
    assert!(command.args(args).env("ALONE", "1").status().unwrap().success());
}
