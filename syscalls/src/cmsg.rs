//! Ancillary data in its wire form, `cmsg(3)`.
use std::sync::Arc;

use abi::Errno;
use abi::uio::Cmsghdr;
use kernel::{Cap, File};
use vfs::Ancillary;
use zerocopy::{FromBytes, IntoBytes};

use crate::Cx;
use crate::decode::Fd;
use crate::socket::SOL_SOCKET;

const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
/// How many files one message carries.
const SCM_MAX_FD: usize = 253;
/// `MSG_CTRUNC`.
pub(crate) const MSG_CTRUNC: u32 = 8;
/// The most ancillary data of one message, Linux `net.core.optmem_max`.
pub(crate) const CONTROL_MAX: u64 = 131_072;
const HEADER: usize = size_of::<Cmsghdr>();

/// One piece of ancillary data: level, type, bytes.
type Piece<'a> = (i32, i32, &'a [u8]);

/// Splits ancillary data into its pieces.
///
/// # Errors
/// `EINVAL` for a length that cannot be.
fn split(mut bytes: &[u8]) -> Result<Vec<Piece<'_>>, Errno> {
    let mut pieces = Vec::new();
    while let Ok((head, _)) = Cmsghdr::read_from_prefix(bytes) {
        let len = usize::try_from(head.len).map_err(|_wide| Errno::EINVAL)?;
        let data = bytes.get(HEADER..len).ok_or(Errno::EINVAL)?;
        pieces.push((head.level, head.ty, data));
        bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(pieces)
}

/// Decodes what sendmsg(2) was given: descriptors become files, credentials are checked.
///
/// # Errors
/// `EINVAL`, `EBADF`, `EPERM` for credentials that the caller has not.
pub(crate) fn decode(cx: &Cx<'_>, bytes: &[u8]) -> Result<Vec<Ancillary>, Errno> {
    let mut out = Vec::new();
    for (level, ty, data) in split(bytes)? {
        out.push(match (level, ty) {
            (SOL_SOCKET, SCM_RIGHTS) => Ancillary::Rights(rights(cx, data)?),
            (SOL_SOCKET, SCM_CREDENTIALS) => credentials(cx, data)?,
            _ => Ancillary::Other { level, ty, data: data.to_vec() },
        });
    }
    Ok(out)
}

fn rights(cx: &Cx<'_>, data: &[u8]) -> Result<Vec<Arc<dyn File>>, Errno> {
    let (fds, _) = data.as_chunks::<4>();
    if fds.len() > SCM_MAX_FD {
        return Err(Errno::EINVAL);
    }
    fds.iter().map(|fd| cx.file(Fd(i32::from_le_bytes(*fd)))).collect()
}

fn credentials(cx: &Cx<'_>, data: &[u8]) -> Result<Ancillary, Errno> {
    let [pid, uid, gid] = <[u32; 3]>::read_from_bytes(data).map_err(|_size| Errno::EINVAL)?;
    let maps = cx.kernel().id_maps();
    if !maps.users.contains(uid) || !maps.groups.contains(gid) {
        return Err(Errno::EINVAL);
    }
    let creds = cx.credentials();
    let pid = pid.cast_signed();
    let own_pid = pid == cx.tgid() || creds.has_cap(Cap::SYS_ADMIN);
    let own_uid = [creds.uid, creds.euid, creds.suid].contains(&uid) || creds.has_cap(Cap::SETUID);
    let own_gid = [creds.gid, creds.egid, creds.sgid].contains(&gid) || creds.has_cap(Cap::SETGID);
    if own_pid && own_uid && own_gid {
        Ok(Ancillary::Credentials { pid, uid, gid })
    } else {
        Err(Errno::EPERM)
    }
}

/// Collects the wire form of ancillary data in a room of limited size.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// What is stored.
    pub(crate) bytes: Vec<u8>,
    room: usize,
    /// Whether something did not fit.
    pub(crate) truncated: bool,
}

impl Encoder {
    pub(crate) const fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room, truncated: false }
    }

    /// How many bytes of data fit into one more piece.
    fn left(&self) -> usize {
        self.room.saturating_sub(self.bytes.len()).saturating_sub(HEADER)
    }

    /// Adds a piece, cut to the room there is.
    fn add(&mut self, level: i32, ty: i32, data: &[u8]) {
        if self.room.saturating_sub(self.bytes.len()) < HEADER {
            self.truncated = true;
            return;
        }
        let data = match data.get(..self.left()) {
            Some(cut) if cut.len() < data.len() => {
                self.truncated = true;
                cut
            }
            _ => data,
        };
        let head = Cmsghdr { len: (HEADER + data.len()) as u64, level, ty };
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(data);
        // The padding counts as long as there is room for it.
        self.bytes.resize(self.bytes.len().next_multiple_of(8).min(self.room), 0);
    }

    /// Adds what was received; files get descriptors as far as there is room.
    pub(crate) fn encode(&mut self, cx: &Cx<'_>, ancillary: Vec<Ancillary>, cloexec: bool) {
        for one in ancillary {
            match one {
                Ancillary::Rights(files) => self.rights(cx, files, cloexec),
                Ancillary::Credentials { pid, uid, gid } => {
                    self.add(SOL_SOCKET, SCM_CREDENTIALS, [pid.cast_unsigned(), uid, gid].as_bytes());
                }
                Ancillary::Other { level, ty, data } => self.add(level, ty, &data),
            }
        }
    }

    fn rights(&mut self, cx: &Cx<'_>, files: Vec<Arc<dyn File>>, cloexec: bool) {
        let fits = self.left() / 4;
        let mut fds = Vec::new();
        let count = files.len();
        for file in files.into_iter().take(fits) {
            match cx.fds().and_then(|t| t.install(file, cloexec, cx.fd_limit())) {
                Ok(fd) => fds.push(fd),
                Err(_) => break,
            }
        }
        if fds.len() < count {
            self.truncated = true;
        }
        if !fds.is_empty() {
            self.add(SOL_SOCKET, SCM_RIGHTS, fds.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_and_come_back() {
        let mut encoder = Encoder::new(100);
        encoder.add(1, 2, b"abc");
        encoder.add(3, 4, b"0123456789");
        assert_eq!((encoder.bytes.len(), encoder.truncated), (24 + 32, false));
        let pieces = split(&encoder.bytes).expect("whole");
        assert_eq!(pieces, [(1, 2, &b"abc"[..]), (3, 4, &b"0123456789"[..])]);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_told() {
        let mut encoder = Encoder::new(20);
        encoder.add(1, 1, b"abcdefgh");
        assert_eq!((encoder.bytes.len(), encoder.truncated), (20, true));
        encoder.add(1, 1, b"x");
        assert_eq!(encoder.bytes.len(), 20);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for len in [0u64, 15, 17, u64::MAX] {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend([0; 8]);
            assert_eq!(split(&bytes), Err(Errno::EINVAL), "{len}");
        }
        assert_eq!(split(&[1, 2, 3]), Ok(vec![]));
    }
}
