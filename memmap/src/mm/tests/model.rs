//! Random calls and accesses of two processes, held against a table of pages.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use abi::Errno;
use abi::mman::{
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE,
    PROT_NONE, PROT_READ, PROT_WRITE,
};
use proptest::prelude::*;

use super::fake::Guest;
use crate::{FaultSignal, MmLimits, MmapArgs, PAGE};

const BASE: u64 = 0x6000_0000_0000;
const PAGES: u64 = 24;

#[derive(Clone, Debug)]
enum Op {
    Map { page: u64, len: u64, prot: u32, shared: bool },
    Unmap { page: u64, len: u64 },
    Protect { page: u64, len: u64, prot: u32 },
    Move { page: u64, len: u64, new_len: u64, to: u64 },
    DontNeed { page: u64, len: u64 },
    Store { page: u64, value: u8, by: Writer },
    Fork,
    Switch,
}

#[derive(Clone, Copy, Debug)]
enum Writer {
    Guest,
    Blind,
    Sentry,
    Force,
}

fn prot() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(PROT_READ | PROT_WRITE), 2 => Just(PROT_READ), 1 => Just(PROT_NONE)]
}

fn op() -> impl Strategy<Value = Op> {
    let (page, len) = (|| 0..PAGES, || 1..7u64);
    let by = prop_oneof![Just(Writer::Guest), Just(Writer::Blind), Just(Writer::Sentry), Just(Writer::Force)];
    prop_oneof![
        3 => (page(), len(), prot(), any::<bool>())
            .prop_map(|(page, len, prot, shared)| Op::Map { page, len, prot, shared }),
        1 => (page(), len()).prop_map(|(page, len)| Op::Unmap { page, len }),
        2 => (page(), len(), prot()).prop_map(|(page, len, prot)| Op::Protect { page, len, prot }),
        2 => (page(), len(), len(), page())
            .prop_map(|(page, len, new_len, to)| Op::Move { page, len, new_len, to }),
        1 => (page(), len()).prop_map(|(page, len)| Op::DontNeed { page, len }),
        6 => (page(), 1..255u8, by).prop_map(|(page, value, by)| Op::Store { page, value, by }),
        1 => Just(Op::Fork),
        2 => Just(Op::Switch),
    ]
}

#[derive(Clone, Debug)]
enum Contents {
    Private(u8),
    /// The bytes of a shared mapping by page, and which of them.
    Shared(Rc<RefCell<Vec<u8>>>, usize),
}

#[derive(Clone, Debug)]
struct Page {
    prot: u32,
    contents: Contents,
    /// Which call of mmap(2) made it: a move must not cross these.
    vma: u64,
    /// How far from that mapping's start, moves undone.
    index: u64,
}

#[derive(Clone, Debug, Default)]
struct Model {
    pages: BTreeMap<u64, Page>,
}

impl Model {
    fn load(&self, page: u64) -> Result<u8, i32> {
        let page = self.pages.get(&page).ok_or(FaultSignal::SEGV_MAPERR)?;
        match &page.contents {
            _ if page.prot == PROT_NONE => Err(FaultSignal::SEGV_ACCERR),
            Contents::Private(value) => Ok(*value),
            Contents::Shared(bytes, at) => bytes.borrow().get(*at).copied().ok_or(FaultSignal::BUS_ADRERR),
        }
    }
    fn store(&mut self, page: u64, value: u8, force: bool) -> Result<(), i32> {
        let page = self.pages.get_mut(&page).ok_or(FaultSignal::SEGV_MAPERR)?;
        let private = matches!(page.contents, Contents::Private(_));
        if page.prot & PROT_WRITE == 0 && !(force && private) {
            return Err(FaultSignal::SEGV_ACCERR);
        }
        match &mut page.contents {
            Contents::Private(old) => *old = value,
            Contents::Shared(bytes, at) => match bytes.borrow_mut().get_mut(*at) {
                Some(old) => *old = value,
                None => return Err(FaultSignal::BUS_ADRERR),
            },
        }
        Ok(())
    }
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn map(guest: &Guest, model: &mut Model, op: &Op, vma: u64) {
    let Op::Map { page, len, prot, shared } = *op else { return };
    let flags = MAP_FIXED | MAP_ANONYMOUS | if shared { MAP_SHARED } else { MAP_PRIVATE };
    let args = MmapArgs { addr: at(page), len: len * PAGE, prot, flags, ..MmapArgs::default() };
    assert_eq!(guest.mm.mmap(args), Ok(at(page)));
    let bytes = Rc::new(RefCell::new(vec![0; usize::try_from(len).expect("small")]));
    for i in 0..len {
        let contents = match shared {
            true => Contents::Shared(Rc::clone(&bytes), usize::try_from(i).expect("small")),
            false => Contents::Private(0),
        };
        model.pages.insert(page + i, Page { prot, contents, vma: if shared { vma } else { 0 }, index: i });
    }
}

/// A move, where it is certain what Linux says: the pages are of one mapping, and nothing overlaps.
fn relocate(guest: &Guest, model: &mut Model, op: &Op) {
    let Op::Move { page, len, new_len, to } = *op else { return };
    let old: Vec<Option<Page>> = (page..page + len).map(|p| model.pages.get(&p).cloned()).collect();
    let uniform = old.iter().all(|p| match (p, &old[0]) {
        (Some(p), Some(first)) => p.prot == first.prot && p.vma == first.vma && p.vma != 0,
        _ => false,
    });
    let consecutive = old
        .iter()
        .flatten()
        .zip(0..)
        .all(|(p, i)| old[0].as_ref().is_some_and(|first| p.index == first.index + i));
    if !uniform || !consecutive || (page < to + new_len && to < page + len) {
        return;
    }
    let flags = MREMAP_FIXED | MREMAP_MAYMOVE;
    let moved = guest.mm.mremap(at(page), len * PAGE, new_len * PAGE, flags, at(to), MmLimits::default());
    assert_eq!(moved, Ok(at(to)));
    let first = old[0].clone().expect("uniform");
    for p in page..page + len {
        model.pages.remove(&p);
    }
    for i in 0..new_len {
        let Contents::Shared(bytes, start) = &first.contents else { return };
        let contents = Contents::Shared(Rc::clone(bytes), start + usize::try_from(i).expect("small"));
        model.pages.insert(to + i, Page { contents, index: first.index + i, ..first.clone() });
    }
}

fn store(guest: &Guest, model: &mut Model, page: u64, value: u8, by: Writer) {
    let expected = model.store(page, value, matches!(by, Writer::Force));
    let as_errno = expected.map_err(|_signal| Errno::EFAULT);
    match by {
        Writer::Guest => assert_eq!(guest.store(at(page), value).map_err(|s| s.code), expected),
        Writer::Blind => assert_eq!(guest.store_blind(at(page), value).map_err(|s| s.code), expected),
        Writer::Sentry => assert_eq!(guest.mm.write_bytes(at(page), &[value]), as_errno),
        Writer::Force => assert_eq!(guest.mm.write_bytes_force(at(page), &[value]).map(|_| ()), as_errno),
    }
}

fn apply(guest: &Guest, model: &mut Model, op: &Op, step: u64) {
    let mapped =
        |model: &Model, page: u64, len: u64| (page..page + len).all(|p| model.pages.contains_key(&p));
    match *op {
        Op::Map { .. } => map(guest, model, op, step + 1),
        Op::Move { .. } => relocate(guest, model, op),
        Op::Unmap { page, len } => {
            assert_eq!(guest.mm.munmap(at(page), len * PAGE), Ok(()));
            (page..page + len).for_each(|p| drop(model.pages.remove(&p)));
        }
        Op::Protect { page, len, prot } => {
            let all = mapped(model, page, len);
            let result = guest.mm.mprotect(at(page), len * PAGE, prot, MmLimits::default());
            assert_eq!(result, if all { Ok(()) } else { Err(Errno::ENOMEM) });
            for p in page..page + len {
                match model.pages.get_mut(&p) {
                    Some(page) => page.prot = prot,
                    None => break,
                }
            }
        }
        Op::DontNeed { page, len } => {
            let all = mapped(model, page, len);
            let result = guest.mm.madvise(at(page), len * PAGE, MADV_DONTNEED);
            assert_eq!(result, if all { Ok(()) } else { Err(Errno::ENOMEM) });
            for p in page..page + len {
                if let Some(Page { contents: Contents::Private(value), .. }) = model.pages.get_mut(&p) {
                    *value = 0;
                }
            }
        }
        Op::Store { page, value, by } => store(guest, model, page, value, by),
        Op::Fork | Op::Switch => {}
    }
}

/// What must hold at any time, and that both sides see the same bytes.
fn check(guest: &Guest, model: &Model) {
    let vmas = guest.mm.vmas();
    for pair in vmas.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start);
    }
    for page in 0..PAGES + 6 {
        let vma = vmas.iter().find(|v| v.range.contains(&at(page)));
        assert_eq!(vma.map(|v| v.prot), model.pages.get(&page).map(|p| p.prot));
        let shown = guest.space.shown(at(page));
        if let Some(shown) = shown {
            let prot = vma.expect("only what is mapped is shown").prot;
            assert!(prot != PROT_NONE && (prot & PROT_WRITE != 0 || !shown.access.write));
        }
        let expected = model.load(page);
        let mut byte = [0];
        let read = guest.mm.read_bytes(at(page), &mut byte).map(|()| byte[0]);
        assert_eq!(read, expected.map_err(|_signal| Errno::EFAULT));
        if page % 2 == 0 {
            assert_eq!(guest.load(at(page)).map_err(|s| s.code), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_table_of_pages(ops in prop::collection::vec(op(), 1..60)) {
        let mut one = (Guest::new(), Model::default());
        let mut other: Option<(Guest, Model)> = None;
        let file = one.0.mm.memory_file().clone();
        for (step, op) in (0..).zip(&ops) {
            match op {
                Op::Fork => other = Some((one.0.fork(), one.1.clone())),
                Op::Switch => if let Some(other) = &mut other {
                    std::mem::swap(&mut one, other);
                },
                _ => apply(&one.0, &mut one.1, op, step),
            }
            check(&one.0, &one.1);
            if let Some((guest, model)) = &other {
                check(guest, model);
            }
        }
        drop((one, other));
        prop_assert_eq!(file.usage_bytes(), 0);
    }
}
