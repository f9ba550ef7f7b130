use super::*;

const NUMBER: &[u8; 13] = b"\xb8\x27\0\0\0\x0f\x05\x89\xc7\x90\x90\x90\x90";
const COMPARE: &[u8; 13] = b"\x90\x90\x90\x90\x90\x0f\x05\x48\x3d\x01\xf0\xff\xff";
const AT: u64 = 0x7f12_3456_7801;
const AREA: u64 = 0x7f12_0000_0000;

#[test]
fn shapes() {
    let site = Site::decode(AT, NUMBER).unwrap();
    assert_eq!((site.start, site.original()), (AT - 7, [0xb8, 0x27, 0, 0, 0]));
    let site = Site::decode(AT, COMPARE).unwrap();
    assert_eq!((site.start, site.original()), (AT - 2, [0x0f, 0x05, 0x48, 0x3d, 0x01]));
    assert_eq!(Site::decode(AT, b"\x90\x90\x90\x90\x90\x0f\x05\x48\x85\xc0\x90\x90\x90"), None);
    assert_eq!(Site::decode(AT, b"\xb8\x27\0\0\0\xcd\x80\x48\x3d\x01\xf0\xff\xff"), None);
}

#[test]
fn what_stands_behind_a_patched_instruction_is_hlt() {
    for next in [AT, AT + 0x1234, AT + 0xfff1] {
        let site = Site::decode(next, COMPARE).unwrap();
        let window = site.window(AREA);
        assert!(!window.is_empty() && window.start >= AREA && window.end < AREA + AREA_LEN);
        for at in [window.start, window.end - 1] {
            assert_eq!(site.jump(at).unwrap()[2], 0xf4);
        }
        assert_eq!(site.jump(window.start.wrapping_sub(1)), None);
    }
    assert_eq!(Site::decode(AT, NUMBER).unwrap().jump(AT + (1 << 32)), None, "too far");
}

#[test]
fn places_in_a_patch() {
    let patches = Patches::default();
    let site = Site::decode(AT, COMPARE).unwrap();
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
    assert_eq!(patches.overlapping(&(AT + 3..AT + 9)).len(), 0);
    patches.remove(&site);
    assert!(patches.is_empty());
    assert_eq!(patches.place(at), Place::Own);
}
