//! Faults, copies and protections.
use std::sync::Arc;

use abi::mman::{
    MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_PRIVATE, MAP_SHARED, PROT_EXEC,
    PROT_NONE, PROT_READ, PROT_WRITE,
};
use abi::{Errno, Signal};

use super::fake::{Guest, HostFile};
use crate::{FaultSignal, IoDst, IoSrc, IoVec, Mappable, MmLimits, MmapArgs, MmapFile, PAGE};

fn file_args(file: &Arc<HostFile>, len: u64, prot: u32, flags: u32) -> MmapArgs {
    let mappable = Arc::clone(file) as Arc<dyn Mappable>;
    let file = Some(MmapFile { mappable, offset: 0, may_write: true, may_exec: true });
    MmapArgs { len, prot, flags, file, ..MmapArgs::default() }
}

fn code(result: Result<u8, FaultSignal>) -> (Signal, i32) {
    result.map_err(|s| (s.signal, s.code)).expect_err("a signal")
}

#[test]
fn anonymous_memory_is_zero_and_shared_with_the_sentry() {
    let g = Guest::new();
    let at = g.anonymous(3 * PAGE);
    assert_eq!(g.load(at), Ok(0));
    g.store(at + PAGE, 7).expect("store");
    let mut two = [9; 2];
    g.mm.read_bytes(at + PAGE, &mut two).expect("read");
    assert_eq!(two, [7, 0]);
    g.mm.write_bytes(at + 2 * PAGE - 1, &[1, 2]).expect("write");
    assert_eq!((g.load(at + 2 * PAGE - 1), g.load(at + 2 * PAGE)), (Ok(1), Ok(2)));
    assert_eq!(g.space.count(), 3);
    g.mm.munmap(at, 3 * PAGE).expect("unmap");
    assert_eq!((g.space.count(), g.mm.memory_file().usage_bytes()), (0, 0));
    assert_eq!(code(g.load(at)), (Signal::SIGSEGV, FaultSignal::SEGV_MAPERR));
}

#[test]
fn copies_stop_at_holes_and_protections() {
    let g = Guest::new();
    let at = g.anonymous(3 * PAGE);
    g.mm.mprotect(at + PAGE, PAGE, PROT_READ, MmLimits::default()).expect("protect");
    assert_eq!(g.mm.write_bytes_partial(at + PAGE - 3, b"abcdef"), Ok(3));
    assert_eq!(g.mm.write_bytes(at + PAGE - 3, b"abcdef"), Err(Errno::EFAULT));
    assert_eq!(g.mm.write_bytes_partial(at + PAGE, b"abc"), Err(Errno::EFAULT));
    assert_eq!(g.mm.write_bytes_force(at + PAGE, b"abc"), Ok(3));
    assert_eq!(g.load(at + PAGE + 1), Ok(b'b'));
    g.mm.munmap(at + 2 * PAGE, PAGE).expect("unmap");
    let mut buf = [0; 8];
    assert_eq!(g.mm.read_bytes_partial(at + 2 * PAGE - 4, &mut buf), Ok(4));
    assert_eq!(g.mm.read_bytes_partial(u64::MAX - 3, &mut buf), Err(Errno::EFAULT));
    assert_eq!(g.mm.read_bytes_partial(0, &mut buf), Err(Errno::EFAULT));
    g.mm.mprotect(at, PAGE, PROT_NONE, MmLimits::default()).expect("protect");
    assert_eq!(g.mm.read_bytes(at, &mut buf), Err(Errno::EFAULT));
    assert_eq!(g.mm.read_bytes_force(at + PAGE - 3, &mut buf[..3]), Ok(3));
    assert_eq!(&buf[..3], b"abc");
    assert_eq!(code(g.load(at)), (Signal::SIGSEGV, FaultSignal::SEGV_ACCERR));
}

#[test]
fn strings_and_objects() {
    let g = Guest::new();
    let at = g.anonymous(2 * PAGE);
    g.mm.write_bytes(at + PAGE - 2, b"abcd\0").expect("write");
    assert_eq!(g.mm.read_cstr(at + PAGE - 2, 5), Ok(b"abcd".to_vec()));
    assert_eq!(g.mm.read_cstr(at + PAGE - 2, 4), Err(Errno::ENAMETOOLONG));
    g.mm.write_bytes(at + 2 * PAGE - 2, b"ab").expect("write");
    assert_eq!(g.mm.read_cstr(at + 2 * PAGE - 2, 4096), Err(Errno::EFAULT));
    g.mm.write_obj(at + PAGE - 4, &0x1122_3344_5566_7788u64).expect("write");
    assert_eq!(g.mm.read_obj::<u64>(at + PAGE - 4), Ok(0x1122_3344_5566_7788));
    assert_eq!(g.mm.compare_exchange_u32(at + 4, 0, 5), Ok(Ok(0)));
    assert_eq!(g.mm.compare_exchange_u32(at + 4, 0, 5), Ok(Err(5)));
    assert_eq!(g.mm.fetch_op_u32(at + 4, crate::AtomicOp::AndNot, 1), Ok(5));
    assert_eq!(g.mm.atomic_load_u32(at + 4), Ok(4));
    assert_eq!(g.mm.atomic_load_u32(at + 5), Err(Errno::EINVAL));
}

#[test]
fn scatter_and_gather() {
    let g = Guest::new();
    let at = g.anonymous(2 * PAGE);
    let pieces = || {
        [IoVec { addr: at, len: 2 }, IoVec { addr: at, len: 0 }, IoVec { addr: at + 2 * PAGE - 2, len: 100 }]
    };
    let mut dst = IoDst::user_iovec(&g.mm, pieces().into_iter().collect());
    assert_eq!(dst.remaining(), 102);
    assert_eq!(dst.write(b"abcdef"), Ok(4));
    assert_eq!(dst.write(b"ef"), Err(Errno::EFAULT));
    let mut src = IoSrc::user_iovec(&g.mm, pieces().into_iter().collect());
    let mut seen = Vec::new();
    let taken = src.read_into(50, &mut |b: &[u8]| {
        seen.extend_from_slice(b);
        Ok(b.len())
    });
    assert_eq!((taken, seen.as_slice()), (Ok(4), b"abcd".as_slice()));
    let mut dst = IoDst::user(&g.mm, at + PAGE, 2 * 4096);
    let mut calls = Vec::new();
    let stored = dst.write_from(usize::MAX, &mut |room: &mut [u8]| {
        calls.push(room.len());
        Ok(room.len())
    });
    assert_eq!((stored, calls), (Ok(4096), vec![4096]));
}

#[test]
fn private_file_pages_are_copied_on_write() {
    let g = Guest::new();
    let file = HostFile::new(&[b'f'; 3 * 4096 + 10]);
    // At a place where what is shown ahead does not end within it.
    let args = file_args(&file, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED);
    let at = g.mm.mmap(MmapArgs { addr: 1 << 30, ..args }).expect("map");
    assert_eq!(g.load(at), Ok(b'f'));
    assert_eq!(g.space.count(), 4);
    g.store(at, b'g').expect("store");
    g.mm.write_bytes(at + 1, b"h").expect("write");
    assert_eq!((g.load(at), g.load(at + 1), g.load(at + 2)), (Ok(b'g'), Ok(b'h'), Ok(b'f')));
    assert_eq!(g.load(at + 3 * PAGE + 10), Ok(0));
    assert_eq!(code(g.load(at + 4 * PAGE)), (Signal::SIGBUS, FaultSignal::BUS_ADRERR));
    let mut byte = [0];
    assert_eq!(g.mm.read_bytes(at + 4 * PAGE, &mut byte), Err(Errno::EFAULT));
    drop(g);
    assert!(file.keys.is_empty());
}

#[test]
fn truncation_takes_file_pages_back() {
    let g = Guest::new();
    let file = HostFile::new(&vec![b'f'; 12 * 4096]);
    let at = g.mm.mmap(file_args(&file, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE)).expect("map");
    let shared = g.mm.mmap(file_args(&file, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED)).expect("map");
    g.store(at + 8 * PAGE, b'p').expect("store");
    g.store(shared + 8 * PAGE, b's').expect("store");
    assert_eq!(g.load(shared + 8 * PAGE), Ok(b's'));
    file.truncate(4096);
    assert_eq!(g.load(at + 8 * PAGE), Ok(b'p'));
    assert_eq!(g.load(at), Ok(b'f'));
    assert_eq!(code(g.load(at + 4 * PAGE)), (Signal::SIGBUS, FaultSignal::BUS_ADRERR));
    assert_eq!(code(g.load(shared + 8 * PAGE)), (Signal::SIGBUS, FaultSignal::BUS_ADRERR));
    assert_eq!(g.mm.write_bytes(shared + 8 * PAGE, b"x"), Err(Errno::EFAULT));
    assert_eq!(g.mm.write_bytes(shared + 8, b"x"), Ok(()));
    assert_eq!(g.load(at + 8), Ok(b'x'));
    assert_eq!(file.size(), 4096);
}

#[test]
fn words_of_shared_files() {
    let g = Guest::new();
    let file = HostFile::new(&[0; 2 * 4096]);
    let at = g.mm.mmap(file_args(&file, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED)).expect("map") + PAGE;
    assert_eq!(g.mm.fetch_op_u32(at, crate::AtomicOp::Or, 6), Ok(0));
    assert_eq!(g.mm.compare_exchange_u32(at, 6, 1), Ok(Ok(6)));
    assert_eq!((g.mm.atomic_load_u32(at), g.load(at)), (Ok(1), Ok(1)));
    assert_eq!(g.mm.futex_key(at, false), g.fork().mm.futex_key(at, false));
    file.truncate(4096);
    assert_eq!(g.mm.compare_exchange_u32(at, 1, 2), Err(Errno::EFAULT));
}

#[test]
fn rights_follow_the_protections() {
    let g = Guest::new();
    let at = g.anonymous(4 * PAGE);
    g.store(at, 1).expect("store");
    let limits = MmLimits::default();
    g.mm.mprotect(at, 4 * PAGE, PROT_READ, limits).expect("protect");
    assert!(!g.space.shown(at).expect("shown").access.write);
    assert_eq!(g.store(at, 2).expect_err("a signal").code, FaultSignal::SEGV_ACCERR);
    assert_eq!(g.store_blind(at, 2).expect_err("a signal").code, FaultSignal::SEGV_ACCERR);
    assert!(g.execute(at).is_err());
    g.mm.mprotect(at, PAGE, PROT_READ | PROT_EXEC, limits).expect("protect");
    g.execute(at).expect("executable");
    g.mm.mprotect(at, PAGE, PROT_NONE, limits).expect("protect");
    assert_eq!(g.space.shown(at), None);
    g.mm.mprotect(at, PAGE, PROT_READ | PROT_WRITE, limits).expect("protect");
    g.store_blind(at, 3).expect("store");
    assert_eq!(g.load(at), Ok(3));
    assert_eq!(g.mm.mprotect(at + 3 * PAGE, 2 * PAGE, PROT_READ, limits), Err(Errno::ENOMEM));
    assert_eq!(g.mm.mprotect(at, PAGE, 0x10, limits), Err(Errno::EINVAL));
    let low = MmLimits { data: PAGE, ..limits };
    assert_eq!(g.mm.mprotect(at, 4 * PAGE, PROT_READ | PROT_WRITE, low), Err(Errno::ENOMEM));
}

#[test]
fn the_stack_grows_to_its_limit() {
    let g = Guest::new();
    let stack = g.mm.map_stack(1 << 20, false).expect("room");
    g.store(stack.end - 8, 1).expect("store");
    g.store(stack.start - 5 * PAGE, 2).expect("grown");
    g.mm.write_bytes(stack.end - (1 << 20), b"x").expect("grown");
    assert!(g.mm.write_bytes(stack.end - (1 << 20) - 1, b"x").is_err());
    assert_eq!(code(g.load(stack.end - (1 << 20) - 1)), (Signal::SIGSEGV, FaultSignal::SEGV_MAPERR));
    assert_eq!(g.load(stack.end), g.load(stack.end));
}

#[test]
fn a_stack_keeps_its_distance() {
    let g = Guest::new();
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let args = |addr, flags| MmapArgs {
        addr,
        len: PAGE,
        prot: PROT_READ | PROT_WRITE,
        flags,
        ..MmapArgs::default()
    };
    let top = 0x5000_0000_0000;
    g.mm.mmap(args(top, flags | MAP_GROWSDOWN | MAP_FIXED)).expect("map");
    g.mm.mmap(args(top - 300 * PAGE, flags | MAP_FIXED)).expect("map");
    g.store(top - 43 * PAGE, 1).expect("grown");
    g.store(top - 44 * PAGE, 1).expect_err("too near");
    let elsewhere = g.mm.mmap(args(top - 100 * PAGE, flags)).expect("map");
    assert!(elsewhere > top || elsewhere < top - 256 * PAGE);
    assert_eq!(g.mm.mmap(args(top, flags | MAP_FIXED_NOREPLACE)), Err(Errno::EEXIST));
}

#[test]
fn the_heap() {
    let g = Guest::new();
    let limits = MmLimits::default();
    let start = 0x5555_0000_0123;
    g.mm.set_brk_start(start);
    assert_eq!(g.mm.brk(0, limits), start);
    assert_eq!(g.mm.brk(start + 3 * PAGE, limits), start + 3 * PAGE);
    g.store(start + 3 * PAGE - 1, 1).expect("store");
    assert_eq!(g.mm.brk(start + PAGE, limits), start + PAGE);
    assert_eq!(g.mm.brk(start + 2 * PAGE, limits), start + 2 * PAGE);
    assert_eq!(g.load(start + 2 * PAGE - 1), Ok(0));
    let low = MmLimits { data: 4 * PAGE, ..limits };
    assert_eq!(g.mm.brk(start + 5 * PAGE, low), start + 2 * PAGE);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let block = (start & !(PAGE - 1)) + 6 * PAGE;
    g.mm.mmap(MmapArgs { addr: block, len: PAGE, flags, ..MmapArgs::default() }).expect("map");
    assert_eq!(g.mm.brk(start + 5 * PAGE, limits), start + 2 * PAGE);
    assert_eq!(g.mm.brk(start + 4 * PAGE, limits), start + 4 * PAGE);
}

#[test]
fn arguments_of_mmap() {
    let g = Guest::new();
    let file = HostFile::new(b"x");
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let map = |addr, len, flags| g.mm.mmap(MmapArgs { addr, len, flags, ..MmapArgs::default() });
    assert_eq!(map(0, 0, flags), Err(Errno::EINVAL));
    assert_eq!(map(0, u64::MAX, flags), Err(Errno::ENOMEM));
    assert_eq!(map(0, 1 << 60, flags), Err(Errno::ENOMEM));
    assert_eq!(map(1, PAGE, flags | MAP_FIXED), Err(Errno::EINVAL));
    assert_eq!(map(PAGE, PAGE, flags | MAP_FIXED), Err(Errno::EPERM));
    assert_eq!(map(u64::MAX - PAGE + 1, PAGE, flags | MAP_FIXED), Err(Errno::ENOMEM));
    assert_eq!(map(0, PAGE, MAP_ANONYMOUS), Err(Errno::EINVAL));
    assert_eq!(map(0, PAGE, MAP_ANONYMOUS | MAP_SHARED | MAP_PRIVATE), Err(Errno::EINVAL));
    assert!(map(PAGE, PAGE, flags).is_ok_and(|at| at == 16 * PAGE));
    let args = MmapArgs { flags: 3 | 0x8000_0000, ..file_args(&file, PAGE, PROT_READ, 0) };
    assert_eq!(g.mm.mmap(args), Err(Errno::EOPNOTSUPP));
    let mut args = file_args(&file, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    args.file.as_mut().expect("there").may_write = false;
    assert_eq!(g.mm.mmap(args.clone()), Err(Errno::EACCES));
    args.prot = PROT_READ;
    let at = g.mm.mmap(args.clone()).expect("map");
    let limits = MmLimits::default();
    assert_eq!(g.mm.mprotect(at, PAGE, PROT_READ | PROT_WRITE, limits), Err(Errno::EACCES));
    args.flags = MAP_PRIVATE;
    args.prot = PROT_READ | PROT_WRITE;
    g.mm.mmap(args).expect("map");
    let limits = MmLimits { address_space: 10 * PAGE, ..limits };
    assert_eq!(
        g.mm.mmap(MmapArgs { len: 11 * PAGE, flags, limits, ..MmapArgs::default() }),
        Err(Errno::ENOMEM)
    );
}

#[test]
fn shared_anonymous_memory() {
    let g = Guest::new();
    let prot = PROT_READ | PROT_WRITE;
    let flags = MAP_SHARED | MAP_ANONYMOUS;
    let at = g.mm.mmap(MmapArgs { len: 2 * PAGE, prot, flags, ..MmapArgs::default() }).expect("map");
    g.store(at, 4).expect("store");
    g.mm.write_bytes(at + PAGE, &[5]).expect("write");
    assert_eq!((g.load(at), g.load(at + PAGE)), (Ok(4), Ok(5)));
    g.mm.munmap(at, 2 * PAGE).expect("unmap");
    assert_eq!(g.mm.memory_file().usage_bytes(), 0);
}
