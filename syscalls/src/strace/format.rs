//! Arguments as people read them.
use abi::time::Timespec;
use abi::{Errno, SigSet, Signal};

use super::{Kind, flags, structs};
use crate::Cx;
use crate::decode::{Arg, UserPtr};

/// How many strings of a vector are shown.
const MAX_STRINGS: usize = 16;

/// Shows the arguments as they are before the call.
pub(crate) fn inputs(cx: &Cx<'_>, kinds: &[Kind], args: [u64; 6], max: usize) -> Vec<String> {
    let next = |i: usize| args.get(i + 1).copied().unwrap_or(0);
    kinds.iter().zip(args).enumerate().map(|(i, (kind, arg))| one(cx, *kind, arg, next(i), max)).collect()
}

/// Shows the arguments as they are after the call: what was stored is shown in place of its address.
pub(super) fn outputs(
    cx: &Cx<'_>,
    kinds: &[Kind],
    args: [u64; 6],
    mut shown: Vec<String>,
    result: &Result<usize, Errno>,
    max: usize,
) -> Vec<String> {
    let Ok(len) = result else { return shown };
    let next = |i: usize| args.get(i + 1).copied().unwrap_or(0);
    for (i, ((kind, arg), text)) in kinds.iter().zip(args).zip(&mut shown).enumerate() {
        if let Some(stored) = structs::stored(cx, *kind, arg, next(i), *len as u64, max) {
            *text = stored;
        }
    }
    shown
}

/// Shows the result.
pub(super) fn result(result: &Result<usize, Errno>) -> String {
    match result {
        Ok(value) if *value > 1 << 32 => format!("{value:#x}"),
        Ok(value) => value.to_string(),
        Err(errno) => format!("-1 {errno:?} ({})", errno.message()),
    }
}

fn one(cx: &Cx<'_>, kind: Kind, arg: u64, next: u64, max: usize) -> String {
    let low = Arg(arg).low();
    match kind {
        Kind::Int => low.cast_signed().to_string(),
        Kind::Long => arg.cast_signed().to_string(),
        Kind::Size => arg.to_string(),
        Kind::Hex
        | Kind::Output
        | Kind::OutIovecs
        | Kind::OutStat
        | Kind::OutSigAction
        | Kind::OutSet
        | Kind::OutRlimit
        | Kind::OutTime
        | Kind::OutStatus
        | Kind::OutFds => format!("{arg:#x}"),
        Kind::Mode => format!("{low:#o}"),
        Kind::Fd if low.cast_signed() == -100 => "AT_FDCWD".to_owned(),
        Kind::Fd => low.cast_signed().to_string(),
        Kind::Path => match cx.path(UserPtr::new(arg)) {
            Ok(path) => flags::quoted(&path, max.max(256)),
            Err(_) => format!("{arg:#x}"),
        },
        Kind::Input => buffer(cx, arg, next, max),
        Kind::Strings => strings(cx, UserPtr::new(arg), max),
        Kind::Sig => Signal::new(low.cast_signed()).map_or_else(|| low.to_string(), |s| format!("{s:?}")),
        Kind::Set => object::<SigSet>(cx, arg, |s| format!("{s:?}")),
        Kind::Time => object(cx, arg, time),
        Kind::OpenFlags => structs::open_flags(arg),
        Kind::SigAction => object(cx, arg, |a| structs::sigaction(&a)),
        Kind::Rlimit => object(cx, arg, |l| structs::rlimit(&l)),
        Kind::SockAddr => structs::sockaddr(cx, arg, next & 0xffff_ffff),
        Kind::Iovecs => structs::iovecs(cx, arg, next, None, max),
        Kind::PollFds => structs::pollfds(cx, arg, next & 0xffff_ffff, false),
        Kind::Flags(names) => flags::bits(names, arg),
        Kind::OneOf(names) => flags::one_of(names, arg),
    }
}

/// A time in seconds and nanoseconds.
pub(super) fn time(time: Timespec) -> String {
    format!("{{{}, {}}}", time.sec, time.nsec)
}

pub(super) fn object<T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable>(
    cx: &Cx<'_>,
    addr: u64,
    show: impl FnOnce(T) -> String,
) -> String {
    match UserPtr::<T>::new(addr).read_if_some(cx) {
        Ok(Some(value)) => show(value),
        Ok(None) => "NULL".to_owned(),
        Err(_) => format!("{addr:#x}"),
    }
}

pub(super) fn buffer(cx: &Cx<'_>, addr: u64, len: u64, max: usize) -> String {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(max)];
    match cx.memory().and_then(|mm| mm.read_bytes(addr, &mut bytes)) {
        Ok(()) if len > max => flags::quoted(&bytes, max) + "...",
        Ok(()) => flags::quoted(&bytes, max),
        Err(_) => format!("{addr:#x}"),
    }
}

fn strings(cx: &Cx<'_>, vector: UserPtr<u64>, max: usize) -> String {
    let mut shown = Vec::new();
    for i in 0..MAX_STRINGS {
        match vector.at(i).and_then(|p| p.read(cx)) {
            Ok(0) => return format!("[{}]", shown.join(", ")),
            Ok(addr) => shown.push(one(cx, Kind::Path, addr, 0, max)),
            Err(_) => return format!("{vector:?}"),
        }
    }
    format!("[{}, ...]", shown.join(", "))
}
