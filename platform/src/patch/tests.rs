use super::*;

const NUMBER: &[u8; 14] = b"\x90\xb8\x27\0\0\0\x0f\x05\x89\xc7\x90\x90\x90\x90";
const COMPARE: &[u8; 14] = b"\x90\x90\x90\x90\x90\x90\x0f\x05\x48\x3d\x01\xf0\xff\xff";
const AT: u64 = 0x7f12_3456_7801;
const AREA: u64 = 0x7f12_0000_0000;

#[test]
fn shapes() {
    let site = Site::decode(AT, 39, NUMBER).unwrap();
    assert_eq!((site.start, site.original()), (AT - 7, [0xb8, 0x27, 0, 0, 0]));
    let site = Site::decode(AT, 39, COMPARE).unwrap();
    assert_eq!((site.start, site.original()), (AT - 2, [0x0f, 0x05, 0x48, 0x3d, 0x01]));
    assert_eq!(Site::decode(AT, 39, b"\x90\x90\x90\x90\x90\x90\x0f\x05\x48\x85\xc0\x90\x90\x90"), None);
    assert_eq!(Site::decode(AT, 39, b"\x90\xb8\x27\0\0\0\xcd\x80\x48\x3d\x01\xf0\xff\xff"), None);
}

#[test]
fn what_stands_behind_a_patched_instruction_is_hlt() {
    for next in [AT, AT + 0x1234, AT + 0xfff1] {
        let site = Site::decode(next, 39, COMPARE).unwrap();
        let window = site.window(AREA);
        assert!(!window.is_empty() && window.start >= AREA && window.end < AREA + AREA_LEN);
        for at in [window.start, window.end - 1] {
            assert_eq!(site.jump(at).unwrap()[2], 0xf4);
        }
        assert_eq!(site.jump(window.start.wrapping_sub(1)), None);
    }
    assert_eq!(Site::decode(AT, 39, NUMBER).unwrap().jump(AT + (1 << 32)), None, "too far");
}

#[test]
fn a_mov_of_something_else_is_no_number() {
    assert_eq!(Site::decode(AT, 0, NUMBER), None, "another number was called");
    // mov $39,%r8d; syscall
    assert_eq!(Site::decode(AT, 39, b"\x41\xb8\x27\0\0\0\x0f\x05\x89\xc7\x90\x90\x90\x90"), None);
}

#[test]
fn places_in_a_patch() {
    let patches = Patches::default();
    let site = Site::decode(AT, 39, COMPARE).unwrap();
    let at = site.window(AREA).start;
    let code = site.trampoline(at).unwrap();
    assert!(code.len() as u64 <= TRAMPOLINE_LEN);
    assert_eq!(code[22..28], [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff]);
    assert_eq!(patches.resumption(AT), AT);
    patches.add(site, at);
    assert_eq!(patches.resumption(AT), at + 22);
    assert_eq!(patches.place(at), Place::At(AT - 2));
    assert_eq!(patches.place(at + 14), Place::At(AT - 2));
    assert_eq!(patches.place(at + 22), Place::At(AT));
    assert_eq!(patches.place(at + 28), Place::At(AT + 6));
    assert_eq!(patches.place(at - 1), Place::Own);
    let mut seen = [0xee; 4];
    patches.hide(AT - 4, &mut seen);
    assert_eq!(seen, [0xee, 0xee, 0x0f, 0x05]);
    assert_eq!(patches.overlapping(&(AT - 1..AT)).len(), 1);
    assert_eq!(patches.overlapping(&(AT + 2..AT + 9)).len(), 1, "its last byte");
    assert_eq!(patches.overlapping(&(AT + 3..AT + 9)).len(), 0);
    patches.remove(&site);
    assert!(patches.is_empty());
    assert_eq!(patches.resumption(AT), AT);
    // A thread may still be in it.
    assert_eq!(patches.place(at), Place::Former(AT - 2));
    assert_eq!(patches.place(at + 22), Place::Former(AT));
    assert_eq!(patches.start(AT), Some(AT - 2));
    assert_eq!(patches.place(at - 1), Place::Own);
}
