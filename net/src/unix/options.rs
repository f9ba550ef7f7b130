//! `SOL_SOCKET` options of local sockets, `socket(7)`, `unix(7)`.
use abi::Errno;

use super::message::Sender;
use super::socket::{DEFAULT_BUFFER, UnixSocket};

const SOL_SOCKET: i32 = 1;
const SO_DEBUG: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_TYPE: i32 = 3;
const SO_ERROR: i32 = 4;
const SO_DONTROUTE: i32 = 5;
const SO_BROADCAST: i32 = 6;
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_KEEPALIVE: i32 = 9;
const SO_OOBINLINE: i32 = 10;
const SO_PRIORITY: i32 = 12;
const SO_LINGER: i32 = 13;
const SO_REUSEPORT: i32 = 15;
const SO_PASSCRED: i32 = 16;
const SO_PEERCRED: i32 = 17;
const SO_RCVLOWAT: i32 = 18;
const SO_RCVTIMEO: i32 = 20;
const SO_SNDTIMEO: i32 = 21;
const SO_ACCEPTCONN: i32 = 30;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

/// Microseconds in a second.
const MICROS: i64 = 1_000_000;

/// Options that are kept; those without effect on local sockets are as in Linux: told back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Bit n stands for the option with number n that is on.
    flags: u32,
    receive_buffer: i32,
    linger: [i32; 2],
    priority: i32,
    low_water: i32,
    receive_timeout: [i64; 2],
    send_timeout: [i64; 2],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flags: 0,
            receive_buffer: i32::try_from(DEFAULT_BUFFER).unwrap_or(i32::MAX),
            linger: [0; 2],
            priority: 0,
            low_water: 1,
            receive_timeout: [0; 2],
            send_timeout: [0; 2],
        }
    }
}

fn is_flag(name: i32) -> bool {
    matches!(
        name,
        SO_DEBUG | SO_REUSEADDR | SO_DONTROUTE | SO_BROADCAST | SO_KEEPALIVE | SO_OOBINLINE | SO_REUSEPORT
    )
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn longs(values: [i64; 2]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// getsockopt(2).
pub(super) fn get(
    socket: &UnixSocket,
    kept: &Options,
    (domain, ty, protocol): (i32, i32, i32),
    level: i32,
    name: i32,
    _room: usize,
) -> Result<Vec<u8>, Errno> {
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let int = |v: usize| ints(&[i32::try_from(v).unwrap_or(i32::MAX)]);
    Ok(match name {
        SO_TYPE => ints(&[ty]),
        SO_DOMAIN => ints(&[domain]),
        SO_PROTOCOL => ints(&[protocol]),
        SO_ERROR => ints(&[socket.take_error().map_or(0, |e| i32::from(e.raw()))]),
        SO_SNDBUF => int(socket.send_buffer_size()),
        SO_RCVBUF => ints(&[kept.receive_buffer]),
        SO_LINGER => ints(&kept.linger),
        SO_PRIORITY => ints(&[kept.priority]),
        SO_RCVLOWAT => ints(&[kept.low_water]),
        SO_PASSCRED => ints(&[i32::from(socket.passes_credentials())]),
        SO_PEERCRED => {
            // A socket without a peer has nobody, as Linux puts it.
            let nobody = Sender { pid: 0, uid: u32::MAX, gid: u32::MAX };
            let Sender { pid, uid, gid } = socket.peer_owner().unwrap_or(nobody);
            ints(&[pid, uid.cast_signed(), gid.cast_signed()])
        }
        SO_ACCEPTCONN => ints(&[i32::from(socket.is_listening())]),
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => longs(kept.receive_timeout),
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => longs(kept.send_timeout),
        name if is_flag(name) => ints(&[i32::from(kept.flags & 1 << name != 0)]),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

fn int_at(value: &[u8], at: usize) -> Result<i32, Errno> {
    let bytes = value.get(4 * at..).and_then(|v| v.first_chunk::<4>()).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

fn timeout(value: &[u8]) -> Result<[i64; 2], Errno> {
    let (seconds, rest) = value.split_first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let micros = rest.first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    if !(0..MICROS).contains(&micros) {
        return Err(Errno::EDOM);
    }
    // A negative time does not wait at all, which Linux keeps as the shortest time.
    Ok(if seconds < 0 { [0, 1] } else { [seconds, micros] })
}

/// setsockopt(2).
pub(super) fn set(
    socket: &UnixSocket,
    kept: &mut Options,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<(), Errno> {
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let first = int_at(value, 0)?;
    match name {
        SO_SNDBUF | SO_SNDBUFFORCE => socket.set_send_buffer(first.cast_unsigned()),
        SO_RCVBUF | SO_RCVBUFFORCE => {
            let most = i32::try_from(DEFAULT_BUFFER).unwrap_or(i32::MAX);
            kept.receive_buffer = (first.clamp(0, most) * 2).max(2304);
        }
        SO_PASSCRED => socket.set_pass_credentials(first != 0),
        SO_LINGER => kept.linger = [i32::from(first != 0), int_at(value, 1)?],
        SO_PRIORITY => kept.priority = first,
        SO_RCVLOWAT => kept.low_water = first.max(1),
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => kept.receive_timeout = timeout(value)?,
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => kept.send_timeout = timeout(value)?,
        name if is_flag(name) => {
            kept.flags = kept.flags & !(1 << name) | u32::from(first != 0) << name;
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}
