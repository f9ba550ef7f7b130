//! The host's vDSO works in guests.
use super::common::*;
use super::new;
use platform::Trap;
use std::os::unix::fs::FileExt;

/// The offset of a function in the vDSO of this process.
fn find(name: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).unwrap());
    let mut image = vec![0; usize::try_from(end - start).unwrap()];
    std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, start).unwrap();
    let word = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&image[at..at + len]);
        usize::try_from(u64::from_le_bytes(bytes)).unwrap()
    };
    let (phoff, phnum) = (word(32, 8), word(56, 2));
    let dynamic = (0..phnum).map(|i| phoff + i * 56).find(|at| word(*at, 4) == 2).unwrap();
    let dynamic = word(dynamic + 8, 8);
    let tag =
        |kind| (0..).map(|i| dynamic + i * 16).find(|at| word(*at, 8) == kind).map(|at| word(at + 8, 8));
    let (strings, symbols) = (tag(5).unwrap(), tag(6).unwrap());
    let symbol = (0..64)
        .map(|i| symbols + i * 24)
        .find(|at| image[strings + word(*at, 4)..].starts_with(format!("{name}\0").as_bytes()));
    word(symbol.unwrap() + 8, 8) as u64
}

#[test]
fn tells_the_time_without_a_call() {
    let platform = new();
    let vdso = platform.vdso().expect("this host lets it be moved or kept");
    // mov $1,%edi; mov $0x500000,%esi; call *%rax; mov $60,%eax; syscall: CLOCK_MONOTONIC
    let code = b"\xbf\x01\0\0\0\xbe\0\0\x50\0\xff\xd0\xb8\x3c\0\0\0\x0f\x05";
    let memory = Memory::new(code);
    let mut context = context(&platform, &memory);
    let mut regs = abi::Registers { rax: vdso + find("__vdso_clock_gettime"), ..start() };
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(regs.orig_rax, 60, "the function did not have to call");
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let seconds = i64::try_from(memory.data(0)).unwrap();
    assert!((now.tv_sec() - 5..=now.tv_sec()).contains(&seconds), "{seconds}, {now}");
}
