//! ip(7): that there is an Internet at all, and the loopback.

use crate::case::{CaseResult, topic};
use crate::check::check_eq;
use crate::child::{Ended, fork_child, wait_for};
use crate::sys::{SysError, owned, sys, write, zeroed};
use crate::util::read_some;
use std::os::fd::{AsRawFd, OwnedFd};

topic!(inet: [stream_over_the_loopback, datagram_over_the_loopback]);

const LOOPBACK: u32 = 0x0100_007f;

fn bound(kind: i32) -> Result<(OwnedFd, libc::sockaddr_in), SysError> {
    let fd = owned(sys!(socket(libc::AF_INET, kind, 0))?);
    let mut address: libc::sockaddr_in = zeroed();
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = LOOPBACK;
    let mut length = size_of::<libc::sockaddr_in>() as u32;
    sys!(bind(fd.as_raw_fd(), (&raw const address).cast(), length))?;
    sys!(getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut length))?;
    Ok((fd, address))
}

fn stream_over_the_loopback() -> CaseResult {
    let (server, address) = bound(libc::SOCK_STREAM)?;
    sys!(listen(server.as_raw_fd(), 5))?;
    let child = fork_child(|| {
        let Ok(client) = sys!(socket(libc::AF_INET, libc::SOCK_STREAM, 0)).map(owned) else { return 1 };
        if sys!(connect(client.as_raw_fd(), (&raw const address).cast(), 16)).is_err() {
            return 2;
        }
        i32::from(write(client.as_raw_fd(), b"hello") != Ok(5)) * 3
    })?;
    let served = owned(sys!(accept(server.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()))?);
    check_eq!(read_some(served.as_raw_fd(), 10)?, b"hello");
    check_eq!(read_some(served.as_raw_fd(), 10)?, b"");
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn datagram_over_the_loopback() -> CaseResult {
    let (server, address) = bound(libc::SOCK_DGRAM)?;
    let client = owned(sys!(socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?);
    let text = b"packet";
    sys!(sendto(client.as_raw_fd(), text.as_ptr().cast(), 6, 0, (&raw const address).cast(), 16))?;
    check_eq!(read_some(server.as_raw_fd(), 100)?, text);
    Ok(())
}
