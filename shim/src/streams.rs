//! The streams of a process: FIFOs of containerd, or a terminal that is carried to and from them.
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use containerd_shim::warn;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use sync::{LockClass, Mutex};

/// Where the streams of a process are; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// A FIFO.
    pub(crate) stdin: String,
    /// A FIFO, or a file by its URI.
    pub(crate) stdout: String,
    /// The same.
    pub(crate) stderr: String,
    /// Whether there is a terminal.
    pub(crate) terminal: bool,
}

/// What is given to the process.
#[derive(Debug, Default)]
pub(crate) struct Standard {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Standard {
    /// Makes them those of a command.
    pub(crate) fn give(self, command: &mut Command, console: Option<&Path>) {
        let or_null = |file: Option<File>| file.map_or_else(Stdio::null, Stdio::from);
        command.stdin(or_null(self.stdin)).stdout(or_null(self.stdout)).stderr(or_null(self.stderr));
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
    }
}

/// What the shim holds of the streams while the process lives.
#[derive(Debug)]
pub(crate) struct Held {
    /// Held open for writing, so that the process waits for a writer who is yet to come; until there will be none.
    stdin: Mutex<Option<File>>,
    /// Held open for reading, so that the process can write before somebody reads.
    outputs: Mutex<Vec<File>>,
    terminal: Mutex<Option<Arc<File>>>,
}

/// Opens a FIFO for both sides, which waits for nobody.
fn both(path: &str) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.with_context(|| format!("open {path}"))
}

fn output(place: &str, held: &mut Vec<File>) -> Result<Option<File>> {
    if place.is_empty() {
        return Ok(None);
    }
    if let Some(path) = place.strip_prefix("file://") {
        let file = File::options().create(true).append(true).open(path);
        return file.map(Some).with_context(|| format!("open {path}"));
    }
    let path = place.strip_prefix("fifo://").unwrap_or(place);
    ensure!(!path.contains("://"), "streams of the kind {path:?} are not supported");
    held.push(both(path)?);
    File::options().write(true).open(path).map(Some).with_context(|| format!("open {path}"))
}

fn input(place: &str) -> Result<Option<(File, File)>> {
    if place.is_empty() {
        return Ok(None);
    }
    let held = both(place)?;
    let file = File::options().read(true).open(place).with_context(|| format!("open {place}"))?;
    Ok(Some((file, held)))
}

impl Held {
    /// Opens the streams of a process without a terminal.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) fn open(places: &Places) -> Result<(Self, Standard)> {
        let mut held = Vec::new();
        let stdout = output(&places.stdout, &mut held)?;
        let stderr = output(&places.stderr, &mut held)?;
        let (stdin, writer) = input(&places.stdin)?.unzip();
        Ok((Self::new(writer, held), Standard { stdin, stdout, stderr }))
    }

    fn new(stdin: Option<File>, outputs: Vec<File>) -> Self {
        Self {
            stdin: Mutex::new(LockClass::Leaf, stdin),
            outputs: Mutex::new(LockClass::Leaf, outputs),
            terminal: Mutex::new(LockClass::Leaf, None),
        }
    }

    /// Carries a terminal to and from the FIFOs.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) fn carry(places: &Places, master: File) -> Result<Self> {
        let mut held = Vec::new();
        let stdout = output(&places.stdout, &mut held)?;
        let master = Arc::new(master);
        if let Some(stdout) = stdout {
            let from = Arc::clone(&master);
            spawn(move || copy(&from, stdout))?;
        }
        let mut writer = None;
        if let Some((stdin, held)) = input(&places.stdin)? {
            writer = Some(held);
            let to = Arc::clone(&master);
            spawn(move || copy_in(stdin, &to))?;
        }
        let this = Self::new(writer, held);
        *this.terminal.lock() = Some(master);
        Ok(this)
    }

    /// No more input will come.
    pub(crate) fn close_stdin(&self) {
        let gone = self.stdin.lock().take();
        drop(gone);
    }

    /// The process has ended.
    pub(crate) fn close(&self) {
        self.close_stdin();
        let outputs = std::mem::take(&mut *self.outputs.lock());
        drop(outputs);
        let terminal = self.terminal.lock().take();
        drop(terminal);
    }

    /// The terminal has a new size.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.terminal.lock().clone().context("there is no terminal")?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&*terminal, size)?)
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name("stream".to_owned()).spawn(run).map(drop).context("start a thread")
}

/// From the terminal, until nobody has its other side open, or nobody reads.
fn copy(mut from: &File, mut to: File) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // EIO: the other side is closed.
            Err(_) => return,
        }
    }
}

/// To the terminal, until there are no writers any more.
fn copy_in(mut from: File, mut to: &File) {
    if let Err(error) = std::io::copy(&mut from, &mut to) {
        // The terminal is gone.
        warn!("input of a terminal: {error}");
    }
}

/// A socket on which `runsc` sends a terminal; removed with the value.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    dir: PathBuf,
}

impl Drop for Console {
    fn drop(&mut self) {
        // What is left is found in the temporary folder.
        let _left = std::fs::remove_dir_all(&self.dir);
    }
}

impl Console {
    /// Listens, in a folder of its own: the path of a bundle may be too long for a socket.
    ///
    /// # Errors
    /// Those of mkdir(2) and bind(2).
    pub(crate) fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let dir = std::env::temp_dir().join(format!("runsc-pty-{:016x}", u64::from_ne_bytes(bytes)));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).context("make a folder for a socket")?;
        let listener = UnixListener::bind(dir.join("s")).context("listen for a terminal")?;
        Ok(Self { listener, dir })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// The terminal, which has been sent.
    ///
    /// # Errors
    /// When none was.
    pub(crate) fn receive(&self) -> Result<File> {
        // Who should have sent it has ended.
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept().context("no terminal was sent")?;
        receive_file(&stream)
    }
}

fn receive_file(stream: &UnixStream) -> Result<File> {
    let mut name = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [std::io::IoSliceMut::new(&mut name)];
    recvmsg(stream, &mut iov, &mut rights, RecvFlags::CMSG_CLOEXEC).context("receive a terminal")?;
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message
            && let Some(file) = files.next()
        {
            return Ok(File::from(file));
        }
    }
    bail!("no terminal was sent")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;

    /// Opens a FIFO without waiting for its other side.
    fn open_now(path: &Path) -> std::io::Result<File> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        File::options().read(true).custom_flags(flags).open(path)
    }

    #[test]
    fn a_process_can_write_before_somebody_reads() {
        let dir = std::env::temp_dir().join(format!("shim-streams-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let fifo = dir.join("out");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a FIFO");
        let places = Places { stdout: fifo.display().to_string(), ..Places::default() };
        let (held, standard) = Held::open(&places).expect("opens");
        standard.stdout.expect("a stream").write_all(b"early").expect("room");
        let mut reader = open_now(&fifo).expect("opens");
        held.close();
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("reads to the end");
        assert_eq!(text, "early");
        let places = Places { stdout: "binary:///bin/log".to_owned(), ..Places::default() };
        assert!(Held::open(&places).is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
