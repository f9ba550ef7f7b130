//! The ptrace back end runs guest code.
use super::common::*;
use super::new;
use abi::Signal;
use platform::{Access, FaultAccess, Trap};
use std::os::fd::AsFd;

fn exception(signal: Signal, code: i32, addr: u64) -> Trap {
    Trap::Exception { signal, code, addr }
}

fn fault(addr: u64, access: FaultAccess) -> Trap {
    Trap::Fault { addr, access }
}

#[test]
fn system_call_round_trip() {
    let platform = new();
    // mov $39,%eax; syscall; mov %rax,%rdi; mov $60,%eax; syscall
    let memory = Memory::new(b"\xb8\x27\0\0\0\x0f\x05\x48\x89\xc7\xb8\x3c\0\0\0\x0f\x05");
    let mut context = context(&platform, &memory);
    let mut regs = start();
    regs.rsi = 0x1234;
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!((regs.orig_rax, regs.rip, regs.rsi), (39, CODE + 7, 0x1234));
    regs.set_syscall_return(4242);
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!((regs.orig_rax, regs.rdi), (60, 4242));
}

#[test]
fn all_registers_survive() {
    let platform = new();
    let memory = Memory::new(b"\x0f\x05\xeb\xfc");
    let mut context = context(&platform, &memory);
    let mut regs = start();
    let all = [
        &mut regs.rbx,
        &mut regs.rbp,
        &mut regs.rdi,
        &mut regs.rsi,
        &mut regs.rdx,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
    ];
    for (value, register) in (1..).zip(all) {
        *register = value * 0x0101_0101_0101_0101;
    }
    (regs.fs_base, regs.gs_base) = (0x7000_1000, 0x7000_2000);
    regs.eflags = 0x2d7;
    let before = regs;
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    let (cs, ss) = (regs.cs, regs.ss);
    assert_eq!((cs, ss, regs.r11, regs.rcx), (0x33, 0x2b, regs.eflags, CODE + 2));
    regs.r11 = before.r11;
    regs.rcx = before.rcx;
    regs.rax = before.rax;
    assert_eq!(regs.eflags & 0xfd5, before.eflags & 0xfd5);
    regs.eflags = before.eflags;
    let expected = abi::Registers { cs, ss, rip: CODE + 2, orig_rax: 0, ..before };
    assert_eq!(regs, expected);
}

#[test]
fn bad_registers_are_made_good() {
    let platform = new();
    let all = abi::Registers { rip: CODE, rsp: 5, cs: !0, ss: !0, eflags: !0x100, ..start() };
    let all = abi::Registers { fs_base: !0, gs_base: 1 << 63, ds: 0x10, es: !0, fs: 99, gs: 3, ..all };
    let (trap, regs) = run_from(&platform, b"\x0f\x05", all);
    assert_eq!((trap, regs.cs, regs.fs_base, regs.gs_base), (Trap::Syscall, 0x33, 0, 0));
    // A program counter nowhere: each is a fault or what Linux makes of a non-canonical address.
    let nowhere = abi::Registers { rip: 1 << 63, ..start() };
    let (trap, _) = run_from(&platform, b"", nowhere);
    assert!(matches!(trap, Trap::Exception { signal: Signal::SIGSEGV, .. } | Trap::Fault { .. }), "{trap:?}");
}

#[test]
fn segment_bases_that_only_the_guest_can_load() {
    let platform = new();
    // mov $-4096,%rax; wrfsbase %rax; syscall; rdfsbase %rdi; syscall
    let code = b"\x48\xc7\xc0\0\xf0\xff\xff\xf3\x48\x0f\xae\xd0\x0f\x05\xf3\x48\x0f\xae\xc7\x0f\x05";
    let memory = Memory::new(code);
    let mut context = context(&platform, &memory);
    let mut regs = start();
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(regs.fs_base, 4096_u64.wrapping_neg());
    regs.rax = 7;
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(regs.rdi, 4096_u64.wrapping_neg());
}

#[test]
fn faults() {
    let platform = new();
    // mov 0x600123,%eax
    let (trap, regs) = run(&platform, b"\x8b\x04\x25\x23\x01\x60\0");
    assert_eq!(trap, fault(NOTHING + 0x123, FaultAccess::Read));
    assert_eq!((regs.rip, regs.orig_rax), (CODE, u64::MAX));
    // mov %eax,0x400800: to its own code page
    let (trap, _) = run(&platform, b"\x89\x04\x25\0\x08\x40\0");
    assert_eq!(trap, fault(CODE + 0x800, FaultAccess::Write));
    // mov $0x600000,%eax; jmp *%rax
    let (trap, regs) = run(&platform, b"\xb8\0\0\x60\0\xff\xe0");
    assert_eq!((trap, regs.rip), (fault(NOTHING, FaultAccess::Execute), NOTHING));
    // mov $0x500000,%eax; jmp *%rax: data cannot be executed
    let (trap, _) = run(&platform, b"\xb8\0\0\x50\0\xff\xe0");
    assert_eq!(trap, fault(DATA, FaultAccess::Execute));
    // mov $0x8000000000000000,%rax; mov (%rax),%eax: not canonical
    let (trap, _) = run(&platform, b"\x48\xb8\0\0\0\0\0\0\0\x80\x8b\0");
    assert_eq!(trap, exception(Signal::SIGSEGV, 0x80, 0));
    // mov 0xffffffffff600000,%eax
    let (trap, _) = run(&platform, b"\x48\xc7\xc0\0\0\x60\xff\x8b\0");
    assert_eq!(trap, fault(0xffff_ffff_ff60_0000, FaultAccess::Read));
    // mov $0xffffffffff600400,%rax; call *%rax: time(2) of the vsyscall page, where the host has it
    let (trap, regs) = run(&platform, b"\x48\xc7\xc0\0\x04\x60\xff\xff\xd0");
    match trap {
        Trap::Syscall => assert_eq!((regs.orig_rax, regs.rip, regs.rsp), (201, CODE + 9, DATA + PAGE)),
        other => assert_eq!(other, fault(0xffff_ffff_ff60_0400, FaultAccess::Execute)),
    }
}

#[test]
fn a_resolved_fault_goes_on() {
    let platform = new();
    // mov %edi,0x600008; syscall
    let memory = Memory::new(b"\x89\x3c\x25\x08\0\x60\0\x0f\x05");
    let space = memory.space(&platform);
    let mut context = space.clone().new_context().unwrap();
    let mut regs = start();
    regs.rdi = 77;
    assert_eq!(context.switch(&mut regs).unwrap(), fault(NOTHING + 8, FaultAccess::Write));
    space.map(NOTHING, PAGE, memory.0.as_fd(), PAGE, Access::READ, false).unwrap();
    assert_eq!(context.switch(&mut regs).unwrap(), fault(NOTHING + 8, FaultAccess::Write));
    space.protect(NOTHING, PAGE, Access::READ_WRITE).unwrap();
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(memory.data(8), 77);
    space.unmap(NOTHING, PAGE).unwrap();
    regs.rip = CODE;
    assert_eq!(context.switch(&mut regs).unwrap(), fault(NOTHING + 8, FaultAccess::Write));
}

#[test]
fn requests_outside_the_guests_part_are_refused() {
    let platform = new();
    let memory = Memory::new(b"");
    let space = platform.new_address_space().unwrap();
    let end = platform.user_range().end;
    for (addr, len) in [(end - PAGE, 2 * PAGE), (end, PAGE), (0, PAGE), (1 << 63, 1 << 63), (CODE, u64::MAX)]
    {
        space.map(addr, len, memory.0.as_fd(), 0, Access::READ, false).unwrap_err();
        space.unmap(addr, len).unwrap_err();
        space.protect(addr, len, Access::ALL).unwrap_err();
    }
    space.map(end - PAGE, PAGE, memory.0.as_fd(), 0, Access::READ, false).unwrap();
    space.unmap(platform.user_range().start, end - platform.user_range().start).unwrap();
    space.protect(CODE, PAGE, Access::READ).unwrap();
}

#[test]
fn exceptions() {
    let platform = new();
    let (trap, regs) = run(&platform, b"\x0f\x0b");
    assert_eq!((trap, regs.rip), (exception(Signal::SIGILL, 2, CODE), CODE));
    let (trap, regs) = run(&platform, b"\xcc");
    assert_eq!((trap, regs.rip), (exception(Signal::SIGTRAP, 0x80, 0), CODE + 1));
    // xor %eax,%eax; xor %edx,%edx; div %eax
    let (trap, regs) = run(&platform, b"\x31\xc0\x31\xd2\xf7\xf0");
    assert_eq!((trap, regs.rip), (exception(Signal::SIGFPE, 1, CODE + 4), CODE + 4));
    // hlt
    assert_eq!(run(&platform, b"\xf4").0, exception(Signal::SIGSEGV, 0x80, 0));
    // pushf; orl $0x100,(%rsp); popf; nop; nop: the trap flag
    let (trap, regs) = run(&platform, b"\x9c\x81\x0c\x24\0\x01\0\0\x9d\x90\x90");
    assert_eq!((trap, regs.rip), (exception(Signal::SIGTRAP, 2, CODE + 10), CODE + 10));
}

#[test]
fn calls_of_32_bit_code_are_faults() {
    let platform = new();
    let regs = abi::Registers { rax: 20, ..start() };
    let (trap, regs) = run_from(&platform, b"\xcd\x80", regs);
    assert_eq!(trap, exception(Signal::SIGSEGV, 0x80, 0));
    assert_eq!((regs.rip, regs.rax, regs.orig_rax), (CODE, 20, u64::MAX));
    // push $0x23; push $0x40000e; lretq: to `int $0x80` in a 32-bit segment
    let code = b"\x6a\x23\x68\x09\0\x40\0\x48\xcb\x31\xc9\xcd\x80";
    let (trap, regs) = run(&platform, code);
    assert_eq!((trap, regs.cs), (exception(Signal::SIGSEGV, 0x80, 0), 0x23));
}

#[test]
fn a_mapping_past_the_end_of_its_file() {
    let platform = new();
    // mov 0x600000,%eax
    let memory = Memory::new(b"\x8b\x04\x25\0\0\x60\0");
    let space = memory.space(&platform);
    space.map(NOTHING, PAGE, memory.0.as_fd(), 64 * PAGE, Access::READ, false).unwrap();
    let mut context = space.new_context().unwrap();
    assert_eq!(context.switch(&mut start()).unwrap(), exception(Signal::SIGBUS, 2, NOTHING));
}

#[test]
fn an_instruction_across_two_pages() {
    let platform = new();
    let mut code = vec![0x90; 4096];
    code[4094..].copy_from_slice(b"\x8b\x04");
    let memory = Memory::new(&code);
    let space = memory.space(&platform);
    let mut context = space.clone().new_context().unwrap();
    let mut regs = start();
    let next = CODE + PAGE;
    assert!(matches!(context.switch(&mut regs).unwrap(), Trap::Fault { addr, .. } if addr == next));
    assert_eq!(regs.rip, next - 2);
    space.map(next, PAGE, memory.0.as_fd(), 2 * PAGE, Access::READ, false).unwrap();
    assert_eq!(context.switch(&mut regs).unwrap(), fault(next, FaultAccess::Execute));
}

#[test]
fn a_load_by_an_instruction_across_two_pages() {
    let platform = new();
    // cmp (%rcx),%rax
    let mut code = vec![0x90; 4095];
    code.extend(b"\x48\x3b\x01");
    let memory = Memory::new(&code);
    let space = memory.space(&platform);
    space.map(CODE + PAGE, PAGE, memory.0.as_fd(), PAGE, Access::READ_EXECUTE, false).unwrap();
    let mut context = space.new_context().unwrap();
    let mut regs = abi::Registers { rcx: NOTHING + 0x123, ..start() };
    assert_eq!(context.switch(&mut regs).unwrap(), fault(NOTHING + 0x123, FaultAccess::Read));
    assert_eq!(regs.rip, CODE + PAGE - 1);
}

#[test]
fn floating_point_state() {
    let platform = new();
    // movq %rdi,%xmm0; syscall; movq %xmm0,%rdi; syscall
    let memory = Memory::new(b"\x66\x48\x0f\x6e\xc7\x0f\x05\x66\x48\x0f\x7e\xc7\x0f\x05");
    let mut context = context(&platform, &memory);
    let fresh = context.save_fpu().unwrap();
    assert_eq!(fresh.0.len(), platform.initial_fpu().0.len());
    assert_eq!(fresh.0[0..2], [0x7f, 3], "control word");
    assert_eq!(fresh.0[24..28], [0x80, 0x1f, 0, 0], "MXCSR");
    assert_eq!(fresh.0[160..416], [0; 256], "nothing of the sentry's");
    let mut regs = start();
    regs.rdi = 0x1122_3344_5566_7788;
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    let mut state = context.save_fpu().unwrap();
    assert_eq!(state.0[160..168], 0x1122_3344_5566_7788_u64.to_le_bytes());
    state.0[160] = 0x99;
    assert!(context.load_fpu(&state).unwrap());
    let good = context.save_fpu().unwrap();
    let mut bad = state.clone();
    bad.0[528] = 1;
    assert!(!context.load_fpu(&bad).unwrap(), "reserved header bytes");
    let mut bad = state.clone();
    bad.0[26..28].copy_from_slice(&[0xff; 2]);
    assert!(!context.load_fpu(&bad).unwrap(), "reserved MXCSR bits");
    assert!(!context.load_fpu(&platform::FpuState(Box::new([0; 100]))).unwrap(), "wrong size");
    assert_eq!(context.save_fpu().unwrap(), good);
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(regs.rdi, 0x1122_3344_5566_7799);
    assert!(context.load_fpu(&platform.initial_fpu()).unwrap());
    regs.rip = CODE + 7;
    assert_eq!(context.switch(&mut regs).unwrap(), Trap::Syscall);
    assert_eq!(regs.rdi, 0);
}
