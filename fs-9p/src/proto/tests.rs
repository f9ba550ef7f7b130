use super::*;
use alloc::vec;
use proptest::prelude::*;

fn qid() -> Qid {
    Qid { kind: Qid::DIR, version: 1, path: 0x0102_0304_0506_0708 }
}

#[test]
fn bytes_are_those_of_the_protocol() {
    let mut out = Vec::new();
    Tmessage::Twalk { fid: 1, newfid: 2, names: vec![Str(b"ab"), Str(b"c")] }.encode(7, &mut out).unwrap();
    assert_eq!(out, [24, 0, 0, 0, 110, 7, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 2, 0, b'a', b'b', 1, 0, b'c']);
    out.clear();
    Rmessage::Rlerror { errno: 2 }.encode(9, &mut out).unwrap();
    assert_eq!(out, [11, 0, 0, 0, 7, 9, 0, 2, 0, 0, 0]);
    out.clear();
    Rmessage::Rgetattr { attr: Attr::default() }.encode(9, &mut out).unwrap();
    assert_eq!(out.len(), 160, "Rgetattr has 153 bytes after its header");
    assert_eq!(out.len() - HEADER, Attr::WIRE_LEN);
    out.clear();
    Rmessage::Rstatfs { stat: StatFs::default() }.encode(9, &mut out).unwrap();
    assert_eq!(out.len(), 67, "Rstatfs has 60 bytes after its header");
    out.clear();
    Tmessage::Tsetattr { fid: 1, set: SetAttr::default() }.encode(9, &mut out).unwrap();
    assert_eq!(out.len(), 67, "Tsetattr has 60 bytes after its header");
}

#[test]
fn entries_come_back() {
    let mut data = Vec::new();
    for (name, offset) in [(&b"a"[..], 1), (b"bcd", 2)] {
        let entry = Dirent { qid: qid(), offset, kind: 8, name: Str(name) };
        let before = data.len();
        put_entry(&mut data, &entry);
        assert_eq!(data.len() - before, Dirent::wire_len(name.len()));
    }
    let names: Vec<_> = Dirents::new(Data(&data)).map(|e| e.unwrap().name.to_vec()).collect();
    assert_eq!(names, [b"a".to_vec(), b"bcd".to_vec()]);
    let cut = data.get(..data.len() - 1).unwrap();
    let mut entries = Dirents::new(Data(cut));
    assert!(entries.next().unwrap().is_ok());
    assert_eq!(entries.next(), Some(Err(CodecError::Short)));
    assert_eq!(entries.next(), None);
}

#[test]
fn what_does_not_fit_is_an_error_and_leaves_nothing() {
    let long = vec![b'x'; 0x1_0000];
    let mut out = vec![1, 2, 3];
    let message = Tmessage::Tunlinkat { dirfid: 1, name: Str(&long), flags: 0 };
    assert_eq!(message.encode(1, &mut out), Err(CodecError::TooLong));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn a_cut_or_lengthened_message_is_an_error() {
    let mut out = Vec::new();
    Tmessage::Twrite { fid: 1, offset: 5, data: Data(b"hello") }.encode(1, &mut out).unwrap();
    for len in 0..out.len() {
        let mut cut = out.get(..len).unwrap().to_vec();
        assert!(Tmessage::decode(&cut).is_err());
        if let Some(size) = cut.first_mut() {
            *size = u8::try_from(len).unwrap();
        }
        assert!(Tmessage::decode(&cut).is_err());
    }
    out.push(0);
    assert_eq!(Tmessage::decode(&out), Err(CodecError::Size));
    *out.first_mut().unwrap() += 1;
    assert_eq!(Tmessage::decode(&out), Err(CodecError::Size));
}

/// Bytes that say their own size and have the type of some message, so that decoding gets past the header.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => Just(1), 1 => any::<u8>()], 0..400);
    (0_u8..=224, any::<u16>(), body).prop_map(|(kind, tag, body)| {
        let size = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(tag.to_le_bytes());
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_never_panic_and_what_decodes_encodes_back(bytes in plausible()) {
        if let Ok((tag, message)) = Tmessage::decode(&bytes) {
            let mut out = Vec::new();
            message.encode(tag, &mut out).unwrap();
            prop_assert_eq!(&out, &bytes);
        }
        if let Ok((tag, message)) = Rmessage::decode(&bytes) {
            let mut out = Vec::new();
            message.encode(tag, &mut out).unwrap();
            prop_assert_eq!(&out, &bytes);
        }
    }

    #[test]
    fn raw_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(Tmessage::decode(&bytes));
        drop(Rmessage::decode(&bytes));
        prop_assert!(Dirents::new(Data(&bytes)).count() <= bytes.len());
        prop_assert!(AttrDirents::new(Data(&bytes)).count() <= bytes.len());
    }

    #[test]
    fn messages_come_back(
        (fid, offset, size, tag) in (any::<u32>(), any::<u64>(), any::<u64>(), any::<u16>()),
        names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..16),
        data in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let first = names.first().cloned().unwrap_or_default();
        let attr = Attr { valid: offset, qid: qid(), mode: fid, size, ..Attr::default() };
        let steps = names.iter().map(|n| Step { newfid: fid, name: Str(n) }).collect();
        let make = Make { mode: fid, uid: 1, gid: 2, rdev: offset, target: Str(&first), open: 0 };
        let asked = [
            Tmessage::Twalk { fid, newfid: 3, names: names.iter().map(|n| Str(n)).collect() },
            Tmessage::Twrite { fid, offset, data: Data(&data) },
            Tmessage::Tlock { fid, kind: 1, flags: 2, start: offset, length: size, proc_id: 1, client: Str(&first) },
            Tmessage::Tsetattr { fid, set: SetAttr { valid: fid, size, ..SetAttr::default() } },
            Tmessage::Twalkattr { fid, steps, open: 2 },
            Tmessage::Tmake { dfid: fid, newfid: 1, name: Str(&first), make },
            Tmessage::Tclunkmany { fids: vec![fid; names.len()] },
        ];
        for message in asked {
            let mut out = Vec::new();
            message.encode(tag, &mut out).unwrap();
            prop_assert_eq!(Tmessage::decode(&out), Ok((tag, message)));
        }
        let answered = [
            Rmessage::Rwalk { qids: vec![qid(); names.len()] },
            Rmessage::Rread { data: Data(&data) },
            Rmessage::Rgetattr { attr },
            Rmessage::Rwalkattr { attrs: vec![attr; names.len()], errno: 2, donated: 1, open_errno: 0 },
            Rmessage::Rgetlock { kind: 1, start: offset, length: size, proc_id: fid, client: Str(&first) },
        ];
        for message in answered {
            let mut out = Vec::new();
            message.encode(tag, &mut out).unwrap();
            prop_assert_eq!(Rmessage::decode(&out), Ok((tag, message)));
        }
    }
}
