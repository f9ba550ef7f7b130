//! Local sockets as open files.
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::stat::S_IFSOCK;
use kernel::{Cap, Task};
use memmap::{IoDst, IoSrc};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};
use vfs::{
    Ancillary, At, FileOps, FsContext, LookupFlags, OpCx, Path, Received, SendArgs, SocketFamily, SocketOps,
    Vfs, access,
};

use super::address::{AF_UNIX, UnixAddress};
use super::in_flight;
use super::message::Sender;
use super::options;
use super::socket::{SocketType, UnixSocket};
use super::transfer;

const SOCK_STREAM: i32 = 1;
const SOCK_DGRAM: i32 = 2;
const SOCK_RAW: i32 = 3;
const SOCK_SEQPACKET: i32 = 5;
const MSG_OOB: u32 = 1;
const MSG_PEEK: u32 = 2;
const MSG_TRUNC: u32 = 0x20;
/// What a bound socket is attached to its inode as.
const ATTACHED: &str = "unix socket";
/// `SCM_MAX_FD`.
const MAX_RIGHTS: usize = 253;
/// `FIONREAD`, `SIOCOUTQ`.
const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;

/// The sockets with abstract names.
#[derive(Debug)]
pub(super) struct AbstractNames(Mutex<HashMap<Vec<u8>, Weak<UnixSocket>>>);

impl AbstractNames {
    fn find(&self, name: &[u8]) -> Option<Arc<UnixSocket>> {
        self.0.lock().get(name).and_then(Weak::upgrade)
    }

    fn claim(&self, name: &[u8], socket: &Arc<UnixSocket>) -> Result<(), Errno> {
        let mut names = self.0.lock();
        if names.get(name).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        if names.len() >= 64 && names.len().is_power_of_two() {
            names.retain(|_, s| s.strong_count() > 0);
        }
        names.insert(name.to_vec(), Arc::downgrade(socket));
        Ok(())
    }

    /// A name nobody has: five hexadecimal digits, as Linux makes them.
    fn claim_any(&self, socket: &Arc<UnixSocket>, first: u64) -> Result<Vec<u8>, Errno> {
        for n in 0..1 << 20 {
            let name = format!("{:05x}", (first + n) & 0xf_ffff).into_bytes();
            if self.claim(&name, socket).is_ok() {
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }
}

/// An open local socket.
#[derive(Debug)]
pub struct UnixFile {
    socket: Arc<UnixSocket>,
    names: Arc<AbstractNames>,
    /// Keeps the inode that the socket is bound to.
    bound: Mutex<Option<Path>>,
    options: Mutex<options::Options>,
}

impl UnixFile {
    fn new(socket: Arc<UnixSocket>, names: &Arc<AbstractNames>) -> Arc<Self> {
        Arc::new(Self {
            socket,
            names: Arc::clone(names),
            bound: Mutex::new(LockClass::Leaf, None),
            options: Mutex::new(LockClass::Leaf, options::Options::default()),
        })
    }

    /// What it opens.
    pub(super) const fn unix_socket(&self) -> &Arc<UnixSocket> {
        &self.socket
    }

    /// Finds the socket with an address.
    fn find(&self, cx: &OpCx<'_>, address: &UnixAddress) -> Result<Arc<UnixSocket>, Errno> {
        match address {
            UnixAddress::Unnamed => Err(Errno::EINVAL),
            UnixAddress::Abstract(name) => self.names.find(name).ok_or(Errno::ECONNREFUSED),
            UnixAddress::Path(path) => {
                let task = cx.task.ok_or(Errno::EINVAL)?;
                let fs = FsContext::of(task)?;
                let vfs = Vfs::new(*cx, &fs);
                let found = vfs.resolve(&At::Cwd, path, LookupFlags::FOLLOW)?;
                let inode = found.inode()?;
                vfs::permission::check(cx, inode.as_ref(), access::WRITE)?;
                if inode.file_type() != S_IFSOCK {
                    return Err(Errno::ECONNREFUSED);
                }
                let ino = inode.metadata()?.ino;
                found.mount.sb().attachment(ino, ATTACHED).ok_or(Errno::ECONNREFUSED)
            }
        }
    }

    fn bind_path(&self, cx: &OpCx<'_>, path: &[u8]) -> Result<(), Errno> {
        let task = cx.task.ok_or(Errno::EINVAL)?;
        let fs = FsContext::of(task)?;
        let made = Vfs::new(*cx, &fs).mknod(&At::Cwd, path, S_IFSOCK | 0o777, 0);
        let made = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
        let ino = made.inode()?.metadata()?.ino;
        let attached = made.mount.sb().attach_with(ino, ATTACHED, || Arc::clone(&self.socket));
        drop(attached);
        *self.bound.lock() = Some(made);
        Ok(())
    }

    fn receive(&self, dst: &mut IoDst<'_>, flags: u32, ancillary: bool) -> Result<transfer::Received, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.socket.receive(dst, transfer::ReceiveArgs { peek: flags & MSG_PEEK != 0, ancillary })
    }
}

/// Who the caller is, for `SO_PEERCRED`: its effective ids.
fn owner(cx: &OpCx<'_>) -> Sender {
    Sender { pid: cx.task.map_or(0, Task::tgid), uid: cx.creds.euid, gid: cx.creds.egid }
}

/// Who the caller is, for messages that say nothing else: its real ids.
fn sender(cx: &OpCx<'_>) -> Sender {
    let creds = cx.task.map(Task::credentials);
    let (uid, gid) = creds.map_or((cx.creds.uid, cx.creds.gid), |c| (c.uid, c.gid));
    Sender { pid: cx.task.map_or(0, Task::tgid), uid, gid }
}

/// Checks what a program says it is, Linux `scm_check_creds`.
fn check_sender(cx: &OpCx<'_>, said: Sender) -> Result<Sender, Errno> {
    let task = cx.task.ok_or(Errno::EPERM)?;
    let c = task.credentials();
    let pid = said.pid == task.tgid() || c.has_cap(Cap::SYS_ADMIN);
    let uid = [c.uid, c.euid, c.suid].contains(&said.uid) || c.has_cap(Cap::SETUID);
    let gid = [c.gid, c.egid, c.sgid].contains(&said.gid) || c.has_cap(Cap::SETGID);
    if pid && uid && gid { Ok(said) } else { Err(Errno::EPERM) }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        // Others may have been reachable only by this one.
        in_flight::collect_in_time();
    }
}

impl FileOps for UnixFile {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 && self.socket.socket_type() == SocketType::Stream {
            return Ok(0);
        }
        Ok(self.receive(dst, 0, false)?.len)
    }

    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        self.socket.send(src, transfer::SendArgs { sender: sender(cx), ..transfer::SendArgs::default() })
    }

    fn stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.events())
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        let n = match cmd {
            FIONREAD if self.socket.is_listening() => return Err(Errno::EINVAL),
            FIONREAD => self.socket.readable_bytes(),
            SIOCOUTQ => self.socket.unread_by_peer(),
            _ => return Err(Errno::ENOTTY),
        };
        cx.mm()?.write_obj(arg, &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn socket(&self) -> Option<&dyn SocketOps> {
        Some(self)
    }
}

impl SocketOps for UnixFile {
    fn kind(&self) -> (i32, i32, i32) {
        let ty = match self.socket.socket_type() {
            SocketType::Stream => SOCK_STREAM,
            SocketType::Datagram => SOCK_DGRAM,
            SocketType::SeqPacket => SOCK_SEQPACKET,
        };
        (i32::from(AF_UNIX), ty, 0)
    }

    fn bind(&self, cx: &OpCx<'_>, address: &[u8]) -> Result<(), Errno> {
        let mut address = UnixAddress::decode(address)?;
        if self.socket.address() != UnixAddress::Unnamed {
            return Err(Errno::EINVAL);
        }
        match &address {
            UnixAddress::Path(path) => self.bind_path(cx, path)?,
            UnixAddress::Abstract(name) => self.names.claim(name, &self.socket)?,
            UnixAddress::Unnamed => {
                let first = cx.task.map_or(0, |t| t.kernel().random_below(1 << 20));
                address = UnixAddress::Abstract(self.names.claim_any(&self.socket, first)?);
            }
        }
        self.socket.set_address(address)
    }

    fn connect(&self, cx: &OpCx<'_>, address: &[u8]) -> Result<(), Errno> {
        // AF_UNSPEC dissolves a datagram socket's association.
        if address.first_chunk::<2>().is_some_and(|f| u16::from_ne_bytes(*f) == 0) {
            if self.socket.socket_type().is_connected() {
                return Err(Errno::EINVAL);
            }
            return self.socket.connect(None, owner(cx));
        }
        let target = self.find(cx, &UnixAddress::decode(address)?)?;
        self.socket.connect(Some(&target), owner(cx))
    }

    fn listen(&self, cx: &OpCx<'_>, backlog: i32) -> Result<(), Errno> {
        self.socket.listen(backlog, owner(cx))
    }

    fn accept(&self, _: &OpCx<'_>) -> Result<(Arc<dyn FileOps>, Vec<u8>), Errno> {
        let socket = self.socket.accept()?;
        let address = socket.peer_address().unwrap_or_default().encode();
        Ok((Self::new(socket, &self.names), address))
    }

    fn send(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, args: SendArgs<'_>) -> Result<usize, Errno> {
        if args.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut out = transfer::SendArgs { sender: sender(cx), ..transfer::SendArgs::default() };
        for data in args.ancillary {
            match data {
                Ancillary::Rights(files) => out.rights.extend(files),
                Ancillary::Credentials { pid, uid, gid } => {
                    out.sender = check_sender(cx, Sender { pid, uid, gid })?;
                }
                Ancillary::Other { .. } => return Err(Errno::EINVAL),
            }
        }
        if out.rights.len() > MAX_RIGHTS {
            return Err(Errno::EINVAL);
        }
        if let Some(address) = args.address {
            if self.socket.socket_type().is_connected() {
                return Err(if self.socket.peer_address().is_ok() {
                    Errno::EISCONN
                } else {
                    Errno::EOPNOTSUPP
                });
            }
            out.to = Some(self.find(cx, &UnixAddress::decode(address)?)?);
        }
        self.socket.send(src, out)
    }

    fn recv(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, flags: u32) -> Result<Received, Errno> {
        let got = self.receive(dst, flags, true)?;
        let truncated = got.full_len > got.len;
        let mut ancillary = Vec::new();
        if let Some(Sender { pid, uid, gid }) = got.sender {
            ancillary.push(Ancillary::Credentials { pid, uid, gid });
        }
        if !got.rights.is_empty() {
            ancillary.push(Ancillary::Rights(got.rights));
        }
        let address = if got.from == UnixAddress::Unnamed { Vec::new() } else { got.from.encode() };
        Ok(Received {
            len: if flags & MSG_TRUNC != 0 { got.full_len } else { got.len },
            address,
            ancillary,
            flags: if truncated { MSG_TRUNC } else { 0 },
        })
    }

    fn shutdown(&self, _: &OpCx<'_>, how: i32) -> Result<(), Errno> {
        match how {
            0 => self.socket.shutdown(true, false),
            1 => self.socket.shutdown(false, true),
            2 => self.socket.shutdown(true, true),
            _ => Err(Errno::EINVAL),
        }
    }

    fn local_address(&self, _: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        Ok(self.socket.address().encode())
    }

    fn peer_address(&self, _: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        Ok(self.socket.peer_address()?.encode())
    }

    fn get_option(&self, _: &OpCx<'_>, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno> {
        let kept = *self.options.lock();
        options::get(&self.socket, &kept, self.kind(), level, name, room)
    }

    fn set_option(&self, _: &OpCx<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let mut kept = *self.options.lock();
        options::set(&self.socket, &mut kept, level, name, value)?;
        *self.options.lock() = kept;
        Ok(())
    }
}

/// `AF_UNIX`.
#[derive(Debug)]
struct Family {
    names: Arc<AbstractNames>,
}

impl Family {
    fn socket_type(ty: i32, protocol: i32) -> Result<SocketType, Errno> {
        if protocol != 0 && protocol != i32::from(AF_UNIX) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        match ty {
            SOCK_STREAM => Ok(SocketType::Stream),
            // Linux takes raw sockets as datagram sockets.
            SOCK_DGRAM | SOCK_RAW => Ok(SocketType::Datagram),
            SOCK_SEQPACKET => Ok(SocketType::SeqPacket),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }
}

impl SocketFamily for Family {
    fn socket(&self, cx: &OpCx<'_>, ty: i32, protocol: i32) -> Result<Arc<dyn FileOps>, Errno> {
        let socket = UnixSocket::new(Self::socket_type(ty, protocol)?, owner(cx));
        Ok(UnixFile::new(socket, &self.names))
    }

    fn pair(&self, cx: &OpCx<'_>, ty: i32, protocol: i32) -> Result<[Arc<dyn FileOps>; 2], Errno> {
        let pair = UnixSocket::pair(Self::socket_type(ty, protocol)?, owner(cx));
        Ok(pair.map(|socket| UnixFile::new(socket, &self.names) as Arc<dyn FileOps>))
    }
}

/// Registers the family.
pub fn register() {
    let names = Arc::new(AbstractNames(Mutex::new(LockClass::Leaf, HashMap::new())));
    vfs::socket::register_family(i32::from(AF_UNIX), Arc::new(Family { names }));
    vfs::register_net_table("unix", super::table::table);
}
