use super::*;

#[test]
fn setuid_from_root_drops_capabilities() {
    let root = Credentials::root();
    let user = root.setuid(1000).expect("root may");
    assert_eq!((user.uid, user.suid, user.fsuid), (1000, 1000, 1000));
    assert!(user.cap_permitted.is_empty() && user.cap_effective.is_empty());
    assert_eq!(user.setuid(0), Err(Errno::EPERM));
    let kept = root.set_keep_caps(true).and_then(|c| c.setuid(1000)).expect("root may");
    assert!(kept.cap_effective.is_empty());
    assert_eq!(kept.cap_permitted, CapSet::FULL);
}

#[test]
fn seteuid_and_back() {
    let root = Credentials::root();
    let down = root.setresuid(u32::MAX, 1000, u32::MAX).expect("root may");
    assert!(down.cap_effective.is_empty() && down.cap_permitted == CapSet::FULL);
    let up = down.setresuid(u32::MAX, 0, u32::MAX).expect("the real id is 0");
    assert_eq!(up.cap_effective, CapSet::FULL);
}

#[test]
fn setfsuid_takes_file_capabilities_only() {
    let other = Credentials::root().setfsuid(7);
    assert!(!other.has_cap(Cap::DAC_OVERRIDE) && other.has_cap(Cap::SYS_ADMIN));
    assert!(other.setfsuid(0).has_cap(Cap::DAC_OVERRIDE));
    assert_eq!(Credentials::user(5, 5).setfsuid(6).fsuid, 5);
}

#[test]
fn exec_of_setuid_root() {
    let mut user = Credentials::user(1000, 1000);
    user.cap_bounding = CapSet::FULL;
    let file = ExecFile { setuid: Some(0), ..ExecFile::default() };
    let (new, secure) = user.exec_transform(&file).expect("allowed");
    assert_eq!((new.uid, new.euid, new.suid), (1000, 0, 0));
    assert!(secure && new.cap_effective == CapSet::FULL);
    user.no_new_privs = true;
    let (new, secure) = user.exec_transform(&file).expect("allowed");
    assert!(!secure && new.euid == 1000 && new.cap_effective.is_empty());
}

#[test]
fn exec_as_root_keeps_to_the_bounding_set() {
    let mut root = Credentials::root();
    root.cap_bounding = CapSet::EMPTY.with(Cap::CHOWN);
    let (new, secure) = root.exec_transform(&ExecFile::default()).expect("allowed");
    assert_eq!(new.cap_permitted, CapSet::EMPTY.with(Cap::CHOWN));
    assert!(!secure);
}

#[test]
fn ambient_capabilities_survive_exec_of_ordinary_files() {
    let mut user = Credentials::user(1000, 1000);
    let one = CapSet::EMPTY.with(Cap::NET_BIND_SERVICE);
    (user.cap_permitted, user.cap_inheritable) = (one, one);
    let user = user.raise_ambient(Cap::NET_BIND_SERVICE).expect("permitted and inheritable");
    let (new, secure) = user.exec_transform(&ExecFile::default()).expect("allowed");
    assert_eq!((new.cap_effective, new.cap_permitted), (one, one));
    assert!(!secure);
    assert_eq!(user.raise_ambient(Cap::CHOWN), Err(Errno::EPERM));
}

#[test]
fn file_capabilities() {
    let mut user = Credentials::user(1000, 1000);
    user.cap_bounding = CapSet::EMPTY.with(Cap::NET_RAW);
    let raw = FileCaps { permitted: user.cap_bounding, inheritable: CapSet::EMPTY, effective: true };
    let (new, secure) =
        user.exec_transform(&ExecFile { caps: Some(raw), ..ExecFile::default() }).expect("given");
    assert!(secure && new.has_cap(Cap::NET_RAW));
    let more = FileCaps { permitted: CapSet::FULL, ..raw };
    assert_eq!(user.exec_transform(&ExecFile { caps: Some(more), ..ExecFile::default() }), Err(Errno::EPERM));
}

#[test]
fn capset_never_adds_permitted() {
    let user = Credentials::user(1, 1);
    let one = CapSet::EMPTY.with(Cap::KILL);
    assert_eq!(user.capset(one, one, CapSet::EMPTY), Err(Errno::EPERM));
    let root = Credentials::root();
    assert_eq!(root.capset(one, one, one).map(|c| c.cap_effective), Ok(one));
    assert_eq!(root.capset(CapSet::FULL, one, one), Err(Errno::EPERM));
}
