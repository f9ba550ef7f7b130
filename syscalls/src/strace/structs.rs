//! Structures as people read them.
use abi::resource::Rlimit;
use abi::siginfo::{SIG_DFL, SIG_IGN, SigAction};
use abi::stat::{S_IFMT, Stat};
use abi::uio::Iovec;

use super::{Kind, flags, format, names};
use crate::Cx;
use crate::decode::UserPtr;

/// How many elements of a vector are shown.
const MAX_ELEMENTS: u64 = 8;

/// `struct stat`: what most who look at it want to know.
pub(super) fn stat(stat: &Stat) -> String {
    let kind = flags::one_of(names::FILE_TYPE, u64::from(stat.mode & S_IFMT));
    let (mode, size) = (stat.mode & !S_IFMT, stat.size);
    format!("{{st_mode={kind}|{mode:#o}, st_uid={}, st_gid={}, st_size={size}, ...}}", stat.uid, stat.gid)
}

/// `struct sigaction`.
pub(super) fn sigaction(action: &SigAction) -> String {
    let handler = match action.handler {
        SIG_DFL => "SIG_DFL".to_owned(),
        SIG_IGN => "SIG_IGN".to_owned(),
        address => format!("{address:#x}"),
    };
    let bits = flags::bits(names::SA, action.flags);
    format!("{{sa_handler={handler}, sa_mask={:?}, sa_flags={bits}}}", action.mask)
}

/// `struct rlimit`.
pub(super) fn rlimit(limit: &Rlimit) -> String {
    let shown = |n: u64| if n == u64::MAX { "RLIM_INFINITY".to_owned() } else { n.to_string() };
    format!("{{rlim_cur={}, rlim_max={}}}", shown(limit.cur), shown(limit.max))
}

/// What wait4(2) tells of an end.
pub(super) fn status(status: i32) -> String {
    let (signal, code) = (status & 0x7f, status >> 8 & 0xff);
    let named = |n: i32| abi::Signal::new(n).map_or_else(|| n.to_string(), |signal| format!("{signal:?}"));
    match signal {
        0 => format!("[exited with {code}]"),
        0x7f if status == 0xffff => "[continued]".to_owned(),
        0x7f => format!("[stopped by {}]", named(code)),
        _ => format!("[killed by {}{}]", named(signal), if status & 0x80 == 0 { "" } else { ", core" }),
    }
}

/// Flags of open(2): the access mode is a number among them.
pub(super) fn open_flags(value: u64) -> String {
    let mode = flags::one_of(names::ACCESS_MODE, value & 3);
    match value & 0xffff_fffc {
        0 => mode,
        rest => format!("{mode}|{}", flags::bits(names::OPEN, rest)),
    }
}

/// A socket's address of `len` bytes.
pub(super) fn sockaddr(cx: &Cx<'_>, addr: u64, len: u64) -> String {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0).min(128)];
    let read = cx.memory().and_then(|mm| mm.read_bytes(addr, &mut bytes));
    let (Ok(()), Some((family, rest))) = (read, bytes.split_first_chunk::<2>()) else {
        return format!("{addr:#x}");
    };
    let family = u16::from_ne_bytes(*family);
    let name = flags::one_of(names::FAMILY, u64::from(family));
    let shown = match (family, rest.split_first()) {
        (1, Some((0, name))) => format!("\"@\"{}", flags::quoted(name, 108)),
        (1, Some(_)) => flags::quoted(rest.split(|byte| *byte == 0).next().unwrap_or_default(), 108),
        _ => flags::quoted(rest, 32),
    };
    format!("{{{name}, {shown}}}")
}

/// The buffers of readv(2) and its kin: `filled` bytes of them, or all.
pub(super) fn iovecs(cx: &Cx<'_>, addr: u64, count: u64, filled: Option<u64>, max: usize) -> String {
    let mut left = filled.unwrap_or(u64::MAX);
    let show = |part: Iovec| {
        let len = part.len.min(left);
        left -= len;
        format::buffer(cx, part.base, len, max)
    };
    vector(cx, addr, count, show)
}

/// The descriptors of poll(2), with what they are ready for once that is known.
pub(super) fn pollfds(cx: &Cx<'_>, addr: u64, count: u64, answered: bool) -> String {
    let show = |entry: [u8; 8]| {
        let [fd @ .., a, b, c, d] = entry;
        let bits = |bytes| flags::bits(names::POLL, u64::from(u16::from_ne_bytes(bytes)));
        let ready = if answered { format!(", revents={}", bits([c, d])) } else { String::new() };
        format!("{{fd={}, events={}{ready}}}", i32::from_ne_bytes(fd), bits([a, b]))
    };
    vector(cx, addr, count, show)
}

/// Some elements of a vector.
pub(super) fn vector<T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable>(
    cx: &Cx<'_>,
    addr: u64,
    count: u64,
    mut show: impl FnMut(T) -> String,
) -> String {
    let mut shown = Vec::new();
    for index in 0..count.min(MAX_ELEMENTS) {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        match UserPtr::<T>::new(addr).at(at).and_then(|element| element.read(cx)) {
            Ok(element) => shown.push(show(element)),
            Err(_) => return format!("{addr:#x}"),
        }
    }
    let more = if count > MAX_ELEMENTS { ", ..." } else { "" };
    format!("[{}{more}]", shown.join(", "))
}

/// What a call that succeeded stored, for kinds that show that.
pub(super) fn stored(
    cx: &Cx<'_>,
    kind: Kind,
    arg: u64,
    next: u64,
    result: u64,
    max: usize,
) -> Option<String> {
    Some(match kind {
        Kind::Output => format::buffer(cx, arg, result, max),
        Kind::OutStat => format::object(cx, arg, |s: Stat| stat(&s)),
        Kind::OutSigAction => format::object(cx, arg, |a: SigAction| sigaction(&a)),
        Kind::OutSet => format::object(cx, arg, |s: abi::SigSet| format!("{s:?}")),
        Kind::OutRlimit => format::object(cx, arg, |l: Rlimit| rlimit(&l)),
        Kind::OutTime => format::object(cx, arg, format::time),
        Kind::OutStatus if result > 0 => format::object(cx, arg, status),
        Kind::OutFds => vector(cx, arg, 2, |fd: i32| fd.to_string()),
        Kind::OutIovecs => iovecs(cx, arg, next, Some(result), max),
        Kind::PollFds => pollfds(cx, arg, next, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(status(0x0300), "[exited with 3]");
        assert_eq!(status(9), "[killed by SIGKILL]");
        assert_eq!(status(0x8b), "[killed by SIGSEGV, core]");
        assert_eq!(status(0x137f), "[stopped by SIGSTOP]");
        assert_eq!(status(0xffff), "[continued]");
    }

    #[test]
    fn access_mode_is_a_number_among_flags() {
        assert_eq!(open_flags(0), "O_RDONLY");
        assert_eq!(open_flags(0o2000002), "O_RDWR|O_CLOEXEC");
        assert_eq!(open_flags(0o1101), "O_WRONLY|O_CREAT|O_TRUNC");
    }

    #[test]
    fn structures_have_names() {
        let limit = Rlimit { cur: 5, max: u64::MAX };
        assert_eq!(rlimit(&limit), "{rlim_cur=5, rlim_max=RLIM_INFINITY}");
        let found = Stat { mode: 0o100_644, size: 7, ..Stat::default() };
        assert_eq!(stat(&found), "{st_mode=S_IFREG|0o644, st_uid=0, st_gid=0, st_size=7, ...}");
        let action = SigAction { handler: 1, flags: 0x1000_0000, ..SigAction::default() };
        assert!(sigaction(&action).starts_with("{sa_handler=SIG_IGN, "), "{}", sigaction(&action));
    }
}
