//! `/proc/net/unix`, Linux `net/unix/af_unix.c:unix_seq_show`.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use kernel::{FdTable, Kernel};
use vfs::FileDescription;

use super::address::UnixAddress;
use super::file::UnixFile;
use super::socket::{SocketType, UnixSocket};

/// `__SO_ACCEPTCON`.
const LISTENS: u32 = 1 << 16;
/// `SS_UNCONNECTED` and `SS_CONNECTED`.
const STATES: [u32; 2] = [1, 3];

/// The sockets that some process has open, by inode.
fn sockets(kernel: &Kernel) -> BTreeMap<u64, Arc<UnixSocket>> {
    let mut found = BTreeMap::new();
    let tables: BTreeMap<usize, Arc<FdTable>> =
        kernel.tasks().iter().filter_map(|t| t.fd_table()).map(|t| (Arc::as_ptr(&t).addr(), t)).collect();
    for table in tables.values() {
        for (_, file) in table.files() {
            let Some(description) = FileDescription::from_file(&file) else { continue };
            let Some(socket) = description.ops().downcast_ref::<UnixFile>() else { continue };
            let inode = description.path().inode().and_then(|inode| inode.metadata());
            if let Ok(meta) = inode {
                found.insert(meta.ino, Arc::clone(socket.unix_socket()));
            }
        }
    }
    found
}

/// A line for each socket. References are not counted as Linux does: two are those of the least there are.
pub(super) fn table(kernel: &Kernel) -> Vec<u8> {
    let mut out = Vec::new();
    for (ino, socket) in sockets(kernel) {
        let ty = match socket.socket_type() {
            SocketType::Stream => 1,
            SocketType::Datagram => 2,
            SocketType::SeqPacket => 5,
        };
        let flags = if socket.is_listening() { LISTENS } else { 0 };
        let [unconnected, connected] = STATES;
        let state = if socket.is_connected() { connected } else { unconnected };
        let mut line = String::new();
        // Addresses in the kernel are nobody's to see, as with `kernel.kptr_restrict`. Writing to a String cannot fail.
        let _infallible =
            write!(line, "{:016x}: {:08X} {:08X} {flags:08X} {ty:04X} {state:02X} {ino:5}", 0, 2, 0);
        out.extend(line.as_bytes());
        match socket.address() {
            UnixAddress::Unnamed => {}
            UnixAddress::Path(path) => {
                out.push(b' ');
                out.extend(path);
            }
            UnixAddress::Abstract(name) => {
                out.extend(b" @");
                out.extend(name.iter().map(|byte| if *byte == 0 { b'@' } else { *byte }));
            }
        }
        out.push(b'\n');
    }
    out
}
