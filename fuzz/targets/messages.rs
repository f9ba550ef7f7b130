//! What a client or a server of 9P sends, as the other decodes it: never a panic, and what decodes encodes to the same bytes.
#![no_main]

use fs_9p::proto::{AttrDirents, Data, Dirents, Rmessage, Tmessage};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut out = Vec::new();
    if let Ok((tag, message)) = Tmessage::decode(bytes) {
        message.encode(tag, &mut out).expect("what was decoded fits");
        assert_eq!(out, bytes);
    }
    out.clear();
    if let Ok((tag, message)) = Rmessage::decode(bytes) {
        message.encode(tag, &mut out).expect("what was decoded fits");
        assert_eq!(out, bytes);
    }
    assert!(Dirents::new(Data(bytes)).count() <= bytes.len());
    assert!(AttrDirents::new(Data(bytes)).count() <= bytes.len());
});
