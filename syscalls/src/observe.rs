//! What handlers tell a [`kernel::Observer`], where there is one.
use std::sync::Arc;

use abi::Errno;
use kernel::{Event, File};
use vfs::{FileDescription, FsContext};

use crate::Cx;
use crate::table::Entry;

/// How many bytes of an argument are shown.
const SHOWN: usize = 64;

fn tell(cx: &Cx<'_>, event: &Event<'_>) {
    if let Some(observer) = cx.kernel().observer() {
        observer.tell(cx.group(), event);
    }
}

/// The name of a file, as its opener sees it.
fn name(cx: &Cx<'_>, file: &FileDescription) -> Vec<u8> {
    FsContext::of(cx).map(|fs| file.path().name(&fs.root()).display()).unwrap_or_default()
}

/// The name of a program and its arguments, where somebody observes.
pub(crate) fn program(
    cx: &Cx<'_>,
    file: &Arc<dyn File>,
    argv: &[Vec<u8>],
) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let file = cx.kernel().observer().and_then(|_| FileDescription::from_file(file))?;
    Some((name(cx, file), argv.to_vec()))
}

/// A file was opened.
pub(crate) fn opened(cx: &Cx<'_>, file: &Arc<FileDescription>, flags: u32) {
    if cx.kernel().observer().is_some() && file.is_writable() {
        tell(cx, &Event::Open { path: &name(cx, file), flags });
    }
}

/// The program was replaced.
pub(crate) fn executed(cx: &Cx<'_>, program: Option<&(Vec<u8>, Vec<Vec<u8>>)>) {
    if let Some((path, argv)) = program {
        tell(cx, &Event::Exec { path, argv });
    }
}

/// A socket was connected, or not.
pub(crate) fn connected(cx: &Cx<'_>, address: &[u8], result: &Result<usize, Errno>) {
    tell(cx, &Event::Connect { address, error: result.err() });
}

/// A socket listens.
pub(crate) fn listening(cx: &Cx<'_>, address: &[u8]) {
    tell(cx, &Event::Listen { address });
}

/// A call was refused for want of a right.
#[cold]
pub(crate) fn refused(cx: &Cx<'_>, entry: &Entry, args: [u64; 6], error: Errno) {
    if cx.kernel().observer().is_some() {
        let args = crate::strace::inputs(cx, entry.args, args, SHOWN);
        tell(cx, &Event::Denied { call: entry.name, args: &args, error });
    }
}
