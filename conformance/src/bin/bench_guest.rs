//! Measures single operations in a loop and prints `NAME NANOSECONDS`, a line each; `bench_guest true` exits at once,
//! `bench_guest cpu` prints how many microseconds a fixed amount of work takes on every CPU at a time.

use std::time::Instant;

/// Runs an operation many times: nanoseconds for one.
fn per_op(name: &str, times: u32, mut op: impl FnMut()) {
    (0..times / 10 + 1).for_each(|_| op());
    let start = Instant::now();
    (0..times).for_each(|_| op());
    println!("{name} {:.1}", start.elapsed().as_nanos() as f64 / f64::from(times));
}

fn touch_fresh_page() {
    // SAFETY: a fresh anonymous mapping of one page, written once and removed.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert!(page != libc::MAP_FAILED, "mmap");
        std::ptr::write_volatile(page.cast::<u8>(), 1);
        libc::munmap(page, 4096);
    }
}

/// Some hundred milliseconds of dependent multiplications.
fn compute(seed: u64) -> u64 {
    (0..400_000_000_u64).fold(seed, |x, i| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i))
}

fn compute_everywhere() {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start = Instant::now();
    let workers: Vec<_> = (0..cpus as u64).map(|seed| std::thread::spawn(move || compute(seed))).collect();
    for worker in workers {
        std::hint::black_box(worker.join().expect("a worker"));
    }
    println!("cpu {}", start.elapsed().as_micros());
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "cpu") {
        return compute_everywhere();
    }
    if args.len() > 1 {
        return;
    }
    per_op("getpid", 20_000, || {
        // SAFETY: takes no pointer.
        unsafe { libc::syscall(libc::SYS_getpid) };
    });
    per_op("getppid", 20_000, || {
        // SAFETY: takes no pointer.
        unsafe { libc::syscall(libc::SYS_getppid) };
    });
    per_op("mmap-touch-munmap", 2_000, touch_fresh_page);
    per_op("fork+exec", 50, || {
        let status = std::process::Command::new(&args[0]).arg("true").status().expect("fork and exec");
        assert!(status.success(), "the child failed");
    });
    let file = "/tmp/bench_guest.file";
    std::fs::write(file, vec![1u8; 4096]).expect("write a file");
    per_op("open+close", 2_000, || drop(std::fs::File::open(file).expect("open")));
    per_op("stat", 2_000, || assert!(std::fs::metadata(file).is_ok(), "stat"));
    let open = std::fs::File::open(file).expect("open");
    let mut buf = [0u8; 4096];
    per_op("read-4k", 2_000, || {
        std::os::unix::fs::FileExt::read_exact_at(&open, &mut buf, 0).expect("read");
    });
    std::fs::remove_file(file).expect("remove");
}
