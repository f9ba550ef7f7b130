//! Where read(2) puts bytes and where write(2) takes them from: the sentry's memory, or a guest's.
use abi::Errno;
use smallvec::SmallVec;

use crate::MemoryManager;

/// The most bytes that go through a buffer of the sentry at a time.
const CHUNK: usize = 64 << 10;

/// One piece of guest memory, `struct iovec`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct IoVec {
    /// The address of the first byte.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
}

/// The rest of a list of pieces of guest memory.
#[derive(Debug)]
struct UserBytes<'a> {
    mm: &'a MemoryManager,
    pieces: SmallVec<[IoVec; 4]>,
    /// The piece that comes next; what is done of it is cut off.
    next: usize,
}

impl UserBytes<'_> {
    /// The first piece that is left, cut to `max` bytes.
    fn front(&mut self, max: usize) -> Option<(u64, usize)> {
        while let Some(piece) = self.pieces.get(self.next) {
            if piece.len > 0 {
                return Some((piece.addr, usize::try_from(piece.len).unwrap_or(usize::MAX).min(max)));
            }
            self.next += 1;
        }
        None
    }
    fn advance(&mut self, n: usize) {
        if let Some(piece) = self.pieces.get_mut(self.next) {
            piece.addr = piece.addr.wrapping_add(n as u64);
            piece.len = piece.len.saturating_sub(n as u64);
        }
    }
}

fn total(pieces: &[IoVec]) -> usize {
    let sum = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.len));
    usize::try_from(sum).unwrap_or(usize::MAX)
}

/// A count if anything was done, else the error.
fn short_count(done: usize, error: Errno) -> Result<usize, Errno> {
    if done > 0 { Ok(done) } else { Err(error) }
}

#[derive(Debug)]
enum Dst<'a> {
    Kernel(&'a mut [u8]),
    User(UserBytes<'a>),
}

/// Where the bytes of a read go. A file takes the next bytes' place by each call.
#[derive(Debug)]
pub struct IoDst<'a> {
    dst: Dst<'a>,
    done: usize,
    remaining: usize,
}

impl<'a> IoDst<'a> {
    /// A buffer of the sentry.
    pub fn kernel(buf: &'a mut [u8]) -> Self {
        let remaining = buf.len();
        Self { dst: Dst::Kernel(buf), done: 0, remaining }
    }
    /// Guest memory.
    #[must_use]
    pub fn user(mm: &'a MemoryManager, addr: u64, len: usize) -> Self {
        Self::user_iovec(mm, SmallVec::from_slice(&[IoVec { addr, len: len as u64 }]))
    }
    /// Pieces of guest memory. The caller checked their count and lengths, as import_iovec of Linux does.
    #[must_use]
    pub fn user_iovec(mm: &'a MemoryManager, pieces: SmallVec<[IoVec; 4]>) -> Self {
        let remaining = total(&pieces);
        Self { dst: Dst::User(UserBytes { mm, pieces, next: 0 }), done: 0, remaining }
    }
    /// How many bytes there is still room for.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.remaining
    }
    /// How many bytes were stored.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }
    /// Makes room for no more than `n` bytes.
    pub fn limit(&mut self, n: usize) {
        self.remaining = self.remaining.min(n);
    }

    fn advance(&mut self, n: usize) {
        if let Dst::User(user) = &mut self.dst {
            user.advance(n);
        }
        self.done += n;
        self.remaining -= n;
    }

    /// Stores as much of `bytes` as there is room for, and tells how much.
    ///
    /// # Errors
    /// `EFAULT` when there is room and not one byte could be stored.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut rest = bytes.get(..self.remaining.min(bytes.len())).unwrap_or(bytes);
        let mut written = 0;
        while !rest.is_empty() {
            let stored = match &mut self.dst {
                Dst::Kernel(buf) => {
                    let room = buf.get_mut(self.done..self.done + rest.len()).ok_or(Errno::EFAULT)?;
                    room.copy_from_slice(rest);
                    Ok(rest.len())
                }
                Dst::User(user) => {
                    let Some((addr, n)) = user.front(rest.len()) else { break };
                    user.mm.write_bytes_partial(addr, rest.get(..n).unwrap_or(rest))
                }
            };
            match stored {
                Ok(n) => {
                    self.advance(n);
                    written += n;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Err(error) => return short_count(written, error),
            }
        }
        Ok(written)
    }

    /// Stores up to `n` zeros, and tells how many.
    ///
    /// # Errors
    /// `EFAULT` when there is room and not one byte could be stored.
    pub fn write_zeros(&mut self, n: usize) -> Result<usize, Errno> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut left = n.min(self.remaining);
        let mut written = 0;
        while left > 0 {
            let chunk = ZEROS.get(..left.min(ZEROS.len())).unwrap_or(&ZEROS);
            match self.write(chunk) {
                Ok(0) => break,
                Ok(stored) => {
                    written += stored;
                    left -= stored;
                    if stored < chunk.len() {
                        break;
                    }
                }
                Err(error) => return short_count(written, error),
            }
        }
        Ok(written)
    }

    /// Stores up to `max` bytes that `f` produces: it gets room and tells how much it filled, less than all when there
    /// is no more. Guest memory is made ready before `f` is called, so that it is not called in vain but when the guest
    /// unmaps that memory at the same time.
    ///
    /// # Errors
    /// `EFAULT` when there is room and not one byte could be stored; those of `f` when it fails before anything was
    /// stored.
    pub fn write_from(
        &mut self,
        max: usize,
        f: &mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut left = max.min(self.remaining);
        let mut written = 0;
        let mut bounce = Vec::new();
        while left > 0 {
            match self.write_chunk(left, &mut bounce, f) {
                Ok((room, stored)) => {
                    written += stored;
                    left -= stored;
                    if stored < room || room == 0 {
                        break;
                    }
                }
                Err(error) => return short_count(written, error),
            }
        }
        Ok(written)
    }

    /// Offers `f` room for up to `max` bytes once; gives the room and how much was stored.
    fn write_chunk(
        &mut self,
        max: usize,
        bounce: &mut Vec<u8>,
        f: &mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(usize, usize), Errno> {
        let (room, filled) = match &mut self.dst {
            Dst::Kernel(buf) => {
                let room = buf.get_mut(self.done..self.done + max).ok_or(Errno::EFAULT)?;
                let filled = f(room)?.min(max);
                self.advance(filled);
                return Ok((max, filled));
            }
            Dst::User(user) => {
                let Some((addr, n)) = user.front(max.min(CHUNK)) else { return Ok((0, 0)) };
                let room = user.mm.prepare_write(addr, n)?;
                bounce.resize(bounce.len().max(room), 0);
                let buf = bounce.get_mut(..room).ok_or(Errno::EFAULT)?;
                let filled = f(buf)?.min(room);
                (room, filled)
            }
        };
        let stored = self.write(bounce.get(..filled).unwrap_or_default())?;
        Ok((room, stored))
    }
}

#[derive(Debug)]
enum Src<'a> {
    Kernel(&'a [u8]),
    User(UserBytes<'a>),
}

/// Where the bytes of a write come from. A file takes the next bytes by each call.
#[derive(Debug)]
pub struct IoSrc<'a> {
    src: Src<'a>,
    done: usize,
    remaining: usize,
}

impl<'a> IoSrc<'a> {
    /// A buffer of the sentry.
    #[must_use]
    pub fn kernel(buf: &'a [u8]) -> Self {
        Self { src: Src::Kernel(buf), done: 0, remaining: buf.len() }
    }
    /// Guest memory.
    #[must_use]
    pub fn user(mm: &'a MemoryManager, addr: u64, len: usize) -> Self {
        Self::user_iovec(mm, SmallVec::from_slice(&[IoVec { addr, len: len as u64 }]))
    }
    /// Pieces of guest memory. The caller checked their count and lengths, as import_iovec of Linux does.
    #[must_use]
    pub fn user_iovec(mm: &'a MemoryManager, pieces: SmallVec<[IoVec; 4]>) -> Self {
        let remaining = total(&pieces);
        Self { src: Src::User(UserBytes { mm, pieces, next: 0 }), done: 0, remaining }
    }
    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.remaining
    }
    /// How many bytes were taken.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }
    /// Leaves no more than `n` bytes to take.
    pub fn limit(&mut self, n: usize) {
        self.remaining = self.remaining.min(n);
    }

    fn advance(&mut self, n: usize) {
        if let Src::User(user) = &mut self.src {
            user.advance(n);
        }
        self.done += n;
        self.remaining -= n;
    }

    /// Fills `buf` as far as there are bytes, and tells how far.
    ///
    /// # Errors
    /// `EFAULT` when there are bytes and not one could be loaded.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let want = self.remaining.min(buf.len());
        let mut taken = 0;
        while taken < want {
            let rest = buf.get_mut(taken..want).unwrap_or_default();
            let loaded = match &mut self.src {
                Src::Kernel(from) => {
                    let from = from.get(self.done..self.done + rest.len()).ok_or(Errno::EFAULT)?;
                    rest.copy_from_slice(from);
                    Ok(rest.len())
                }
                Src::User(user) => {
                    let Some((addr, n)) = user.front(rest.len()) else { break };
                    user.mm.read_bytes_partial(addr, rest.get_mut(..n).unwrap_or_default())
                }
            };
            match loaded {
                Ok(n) => {
                    self.advance(n);
                    taken += n;
                }
                Err(error) => return short_count(taken, error),
            }
        }
        Ok(taken)
    }

    /// Lets `f` consume up to `max` bytes: it gets some and tells how many it took, less than all when it can take no
    /// more; those it did not take are left.
    ///
    /// # Errors
    /// `EFAULT` when there are bytes and not one could be loaded; those of `f` when it fails before anything was taken.
    pub fn read_into(
        &mut self,
        max: usize,
        f: &mut dyn FnMut(&[u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut left = max.min(self.remaining);
        let mut taken = 0;
        let mut bounce = Vec::new();
        while left > 0 {
            match self.read_chunk(left, &mut bounce, f) {
                Ok((offered, consumed)) => {
                    taken += consumed;
                    left -= consumed;
                    if consumed < offered || offered == 0 {
                        break;
                    }
                }
                Err(error) => return short_count(taken, error),
            }
        }
        Ok(taken)
    }

    /// Offers `f` up to `max` bytes once; gives how many were offered and how many taken.
    fn read_chunk(
        &mut self,
        max: usize,
        bounce: &mut Vec<u8>,
        f: &mut dyn FnMut(&[u8]) -> Result<usize, Errno>,
    ) -> Result<(usize, usize), Errno> {
        let (offered, consumed) = match &mut self.src {
            Src::Kernel(from) => {
                let from = from.get(self.done..self.done + max).ok_or(Errno::EFAULT)?;
                (max, f(from)?.min(max))
            }
            Src::User(user) => {
                let Some((addr, n)) = user.front(max.min(CHUNK)) else { return Ok((0, 0)) };
                bounce.resize(bounce.len().max(n), 0);
                let buf = bounce.get_mut(..n).ok_or(Errno::EFAULT)?;
                let loaded = user.mm.read_bytes_partial(addr, buf)?;
                (loaded, f(buf.get(..loaded).unwrap_or_default())?.min(loaded))
            }
        };
        self.advance(consumed);
        Ok((offered, consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_buffer_fills_up() {
        let mut buf = [9; 8];
        let mut dst = IoDst::kernel(&mut buf);
        assert_eq!(dst.write(b"abc"), Ok(3));
        dst.limit(4);
        assert_eq!(dst.write_zeros(2), Ok(2));
        let mut calls = 0;
        let mut fill = |room: &mut [u8]| {
            calls += 1;
            room.fill(b'x');
            Ok(room.len())
        };
        assert_eq!(dst.write_from(100, &mut fill), Ok(2));
        assert_eq!((dst.done(), dst.remaining(), dst.write(b"z")), (7, 0, Ok(0)));
        assert_eq!(calls, 1);
        assert_eq!(&buf, b"abc\0\0xx\x09");
    }

    #[test]
    fn a_kernel_source_runs_dry() {
        let mut src = IoSrc::kernel(b"abcdef");
        let mut two = [0; 2];
        assert_eq!((src.read(&mut two), two), (Ok(2), *b"ab"));
        let mut seen = Vec::new();
        let mut take = |bytes: &[u8]| {
            seen.extend_from_slice(&bytes[..3]);
            Ok(3)
        };
        assert_eq!(src.read_into(10, &mut take), Ok(3));
        assert_eq!(seen, b"cde");
        assert_eq!((src.remaining(), src.done()), (1, 5));
        assert_eq!(src.read_into(10, &mut |_| Err(Errno::EIO)), Err(Errno::EIO));
    }
}
