//! Copies of address spaces.
use abi::mman::{MADV_DONTFORK, MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE};

use super::fake::Guest;
use crate::{FutexKey, MmapArgs, PAGE};

#[test]
fn private_pages_part_at_the_first_store() {
    let parent = Guest::new();
    let at = parent.anonymous(8 * PAGE);
    for page in 0..8 {
        parent.store(at + page * PAGE, 1).expect("store");
    }
    let child = parent.fork();
    assert!(!child.space.shown(at).expect("shown ahead").access.write);
    assert!(!parent.space.shown(at).expect("shown").access.write);
    assert_eq!(child.load(at), Ok(1));
    child.store(at, 2).expect("store");
    parent.store(at + PAGE, 3).expect("store");
    child.mm.write_bytes(at + 5 * PAGE, &[5]).expect("write");
    assert_eq!((parent.load(at), parent.load(at + PAGE), parent.load(at + 5 * PAGE)), (Ok(1), Ok(3), Ok(1)));
    assert_eq!((child.load(at), child.load(at + PAGE), child.load(at + 5 * PAGE)), (Ok(2), Ok(1), Ok(5)));
    let file = parent.mm.memory_file().clone();
    drop(child);
    // The rest is the parent's alone and need not be copied.
    let used = file.usage_bytes();
    parent.store_blind(at + 7 * PAGE, 9).expect("store");
    assert_eq!(file.usage_bytes(), used);
    drop(parent);
    assert_eq!(file.usage_bytes(), 0);
}

#[test]
fn shared_memory_stays_shared() {
    let parent = Guest::new();
    let prot = PROT_READ | PROT_WRITE;
    let flags = MAP_SHARED | MAP_ANONYMOUS;
    let at = parent.mm.mmap(MmapArgs { len: PAGE, prot, flags, ..MmapArgs::default() }).expect("map");
    parent.store(at, 1).expect("store");
    let child = parent.fork();
    child.store(at, 2).expect("store");
    assert_eq!(parent.load(at), Ok(2));
    let key = |guest: &Guest, private| guest.mm.futex_key(at, private).expect("key");
    assert_eq!(key(&parent, false), key(&child, false));
    assert!(matches!(key(&parent, false), FutexKey::Memory { .. }));
    assert_ne!(key(&parent, true), key(&child, true));
    let private = parent.anonymous(PAGE);
    assert!(matches!(parent.mm.futex_key(private, false), Ok(FutexKey::Unshared { .. })));
}

#[test]
fn advice_about_children() {
    let parent = Guest::new();
    let at = parent.anonymous(3 * PAGE);
    for page in 0..3 {
        parent.store(at + page * PAGE, 1).expect("store");
    }
    parent.mm.madvise(at, PAGE, MADV_DONTFORK).expect("advice");
    parent.mm.madvise(at + PAGE, PAGE, MADV_WIPEONFORK).expect("advice");
    let child = parent.fork();
    assert!(child.load(at).is_err());
    assert_eq!((child.load(at + PAGE), child.load(at + 2 * PAGE)), (Ok(0), Ok(1)));
    assert_eq!(child.mm.vmas().len(), 2);
}

#[test]
fn generations() {
    let first = Guest::new();
    let at = first.anonymous(2 * PAGE);
    first.store(at, 1).expect("store");
    let second = first.fork();
    let third = second.fork();
    second.store(at, 2).expect("store");
    drop(first);
    assert_eq!((second.load(at), third.load(at)), (Ok(2), Ok(1)));
    third.store(at, 3).expect("store");
    assert_eq!((second.load(at), third.load(at)), (Ok(2), Ok(3)));
    third.mm.release();
    assert_eq!(third.space.count(), 0);
    assert!(third.mm.mmap(MmapArgs { len: PAGE, flags: 0x22, ..MmapArgs::default() }).is_err());
    assert!(third.load(at).is_err());
}
