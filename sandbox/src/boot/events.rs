//! The stream of events of a container: a line of JSON for each, to a file that the sentry was given.
//!
//! Who reads must not be waited for. The file is a regular one, or a FIFO that is not waited for, and a line is at most what
//! a FIFO takes as a whole or not at all; what it does not take is dropped and counted, and the next line that it takes is
//! preceded by one that says how many were lost.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use abi::sysno::syscall_name;
use kernel::{Event, ExitStatus, Kernel, Observer, ThreadGroup};
use serde_json::{Map, Value, json};

/// `PIPE_BUF` of pipe(7): a write of so much is not torn.
const LINE: usize = 4096;
/// A file that is longer takes no more lines.
const FILE: i64 = 64 << 20;
/// How many arguments are told.
const WORDS: usize = 32;
/// Lengths that strings are cut to, until the line fits; with the last it always does.
const CUTS: [usize; 4] = [1024, 256, 64, 12];

/// Bits of open(2)'s flags that are told by name.
const FLAGS: [(u32, &str); 4] = [
    (abi::fs::O_CREAT, "create"),
    (abi::fs::O_TRUNC, "truncate"),
    (abi::fs::O_APPEND, "append"),
    (abi::fs::O_EXCL, "exclusive"),
];

/// Where a container's events go.
#[derive(Debug)]
pub(super) struct EventLog {
    file: OwnedFd,
    container: String,
    /// Lines that were not taken since the last that was.
    lost: AtomicU64,
}

impl EventLog {
    pub(super) fn new(file: OwnedFd, container: &str) -> Arc<Self> {
        Arc::new(Self { file, container: container.to_owned(), lost: AtomicU64::new(0) })
    }

    /// Writes a line, or counts it.
    fn put(&self, line: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let told = lost == 0 || self.write(&self.line("lost", json!({"count": lost})));
        let put = told && self.write(line);
        let missed = u64::from(!put) + if told { 0 } else { lost };
        if missed != 0 {
            self.lost.fetch_add(missed, Ordering::Relaxed);
        }
    }

    fn write(&self, line: &str) -> bool {
        let full = nix::sys::stat::fstat(self.file.as_fd()).is_ok_and(|stat| stat.st_size >= FILE);
        !full && nix::unistd::write(&self.file, line.as_bytes()) == Ok(line.len())
    }

    /// A line with these fields behind the usual ones.
    fn line(&self, event: &str, fields: Value) -> String {
        let mut all = Map::new();
        all.insert("time".to_owned(), crate::timestamp(SystemTime::now()).into());
        all.insert("container".to_owned(), self.container.clone().into());
        all.insert("event".to_owned(), event.into());
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
        format!("{}\n", Value::Object(all))
    }
}

/// Has events of this container told to the file, if there is one.
pub(super) fn observe(kernel: &Kernel, file: Option<OwnedFd>, container: &str) {
    if let Some(file) = file {
        kernel.observe(EventLog::new(file, container));
    }
}

impl Observer for EventLog {
    fn tell(&self, group: &Arc<ThreadGroup>, event: &Event<'_>) {
        for cut in CUTS {
            let (name, mut fields) = describe(event, cut);
            if let Some(fields) = fields.as_object_mut() {
                let comm = group.leader().map(|leader| leader.name()).unwrap_or_default();
                let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
                fields.insert("pid".to_owned(), group.tgid().into());
                fields.insert("ppid".to_owned(), group.parent_id().into());
                fields.insert("uid".to_owned(), group.credentials().uid.into());
                fields.insert("comm".to_owned(), text(comm, cut).into());
            }
            let line = self.line(name, fields);
            if line.len() <= LINE {
                return self.put(&line);
            }
        }
        // Not reached: the last cut leaves less.
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// At most so many characters of a string.
fn text(bytes: &[u8], cut: usize) -> String {
    String::from_utf8_lossy(bytes).chars().take(cut).collect()
}

/// An event's name and fields.
fn describe(event: &Event<'_>, cut: usize) -> (&'static str, Value) {
    match *event {
        Event::Exec { path, argv } => {
            let shown: Vec<String> = argv.iter().take(WORDS).map(|word| text(word, cut)).collect();
            ("exec", json!({"path": text(path, cut), "argv": shown, "argc": argv.len()}))
        }
        Event::Exit(ExitStatus::Signaled { signal, .. }) => {
            ("exit", json!({"signal": format!("{signal:?}")}))
        }
        Event::Exit(status) => ("exit", json!({"code": status.shell_code()})),
        Event::Open { path, flags } => {
            let names: Vec<&str> =
                FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
            ("open", json!({"path": text(path, cut), "flags": names}))
        }
        Event::Connect { address, error } => {
            let mut fields = socket(address, cut);
            if let (Some(error), Some(fields)) = (error, fields.as_object_mut()) {
                fields.insert("error".to_owned(), format!("{error:?}").into());
            }
            ("connect", fields)
        }
        Event::Listen { address } => ("listen", socket(address, cut)),
        Event::Denied { call, args, error } => {
            let args: Vec<String> = args.iter().map(|arg| text(arg.as_bytes(), cut)).collect();
            ("denied", json!({"by": "permission", "call": call, "args": args, "error": format!("{error:?}")}))
        }
        Event::Filtered { nr, action } => {
            let call = syscall_name(nr.into()).map_or_else(|| nr.to_string(), str::to_owned);
            ("denied", json!({"by": "seccomp", "call": call, "action": action_name(action)}))
        }
    }
}

/// A decision of a filter, as profiles spell it.
fn action_name(action: u32) -> String {
    let data = action & 0xffff;
    match action & 0xffff_0000 {
        0x8000_0000 => "SCMP_ACT_KILL_PROCESS".to_owned(),
        0 => "SCMP_ACT_KILL_THREAD".to_owned(),
        0x0003_0000 => "SCMP_ACT_TRAP".to_owned(),
        0x0005_0000 => format!("SCMP_ACT_ERRNO({data})"),
        _ => format!("{action:#x}"),
    }
}

/// A `struct sockaddr`.
fn socket(address: &[u8], cut: usize) -> Value {
    let Some((family, rest)) = address.split_first_chunk() else { return json!({}) };
    let port = || rest.first_chunk().map_or(0, |port| u16::from_be_bytes(*port));
    match u16::from_ne_bytes(*family) {
        1 => {
            let path = match rest.split_first() {
                Some((0, name)) => format!("@{}", text(name, cut)),
                _ => text(rest.split(|byte| *byte == 0).next().unwrap_or_default(), cut),
            };
            json!({"family": "unix", "address": path})
        }
        2 => {
            let ip: [u8; 4] = rest.get(2..6).and_then(|ip| ip.try_into().ok()).unwrap_or_default();
            json!({"family": "inet", "address": std::net::Ipv4Addr::from(ip).to_string(), "port": port()})
        }
        10 => {
            let ip: [u8; 16] = rest.get(6..22).and_then(|ip| ip.try_into().ok()).unwrap_or_default();
            json!({"family": "inet6", "address": std::net::Ipv6Addr::from(ip).to_string(), "port": port()})
        }
        16 => json!({"family": "netlink"}),
        other => json!({"family": other}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use std::io::Read;

    fn nonblocking_pipe() -> (std::fs::File, OwnedFd) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        (reader.into(), writer)
    }

    fn drain(reader: &mut std::fs::File) -> Vec<Value> {
        let mut text = Vec::new();
        // The error is that nothing is left.
        let _empty = reader.read_to_end(&mut text);
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_is_not_read_is_dropped_counted_and_told() {
        let (mut reader, writer) = nonblocking_pipe();
        let log = EventLog::new(writer, "c");
        let line = log.line("x", json!({"text": "y".repeat(1000)}));
        let total = 1000;
        (0..total).for_each(|_| log.put(&line));
        let mut told = drain(&mut reader);
        assert!(told.len() < 100, "{} lines in a pipe", told.len());
        log.put(&line);
        told.extend(drain(&mut reader));
        assert_eq!(told.last().map(|event| event["event"] == "x"), Some(true));
        // Where a line has no room, one that says so may have.
        let taken = told.iter().filter(|event| event["event"] == "x").count() as u64;
        let lost: u64 = told.iter().filter_map(|event| event["count"].as_u64()).sum();
        assert!(lost > 0);
        assert_eq!(taken + lost, total + 1);
        drop(reader);
        log.put(&line);
        assert_eq!(log.lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_long_file_takes_no_more() {
        let name = std::env::temp_dir().join(format!("events-{}", std::process::id()));
        let file = std::fs::File::create(&name).unwrap();
        std::fs::remove_file(&name).unwrap();
        file.set_len(64 << 20).unwrap();
        let log = EventLog::new(file.try_clone().unwrap().into(), "c");
        log.put("1\n");
        assert_eq!(log.lost.load(Ordering::Relaxed), 1);
        file.set_len(0).unwrap();
        log.put("2\n");
        assert_eq!(log.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_cut_fits() {
        let log = EventLog::new(nonblocking_pipe().1, &"i".repeat(255));
        let cut = *CUTS.last().unwrap();
        let argv = vec![vec![1; 5000]; 100];
        let (name, fields) = describe(&Event::Exec { path: &[1; 5000], argv: &argv }, cut);
        assert!(log.line(name, fields).len() < LINE - 300);
        let args = vec!["\u{1}".repeat(5000); 6];
        let denied = Event::Denied { call: "openat", args: &args, error: abi::Errno::EACCES };
        let (name, fields) = describe(&denied, cut);
        assert!(log.line(name, fields).len() < LINE - 300);
    }

    #[test]
    fn addresses() {
        let show = |bytes: &[u8]| socket(bytes, 99).to_string();
        assert_eq!(show(&[1, 0, b'/', b'a', 0, 9]), r#"{"address":"/a","family":"unix"}"#);
        assert_eq!(show(&[1, 0, 0, b'a']), r#"{"address":"@a","family":"unix"}"#);
        assert_eq!(show(&[1, 0]), r#"{"address":"","family":"unix"}"#);
        assert_eq!(show(&[2, 0, 0, 80, 1, 2, 3, 4]), r#"{"address":"1.2.3.4","family":"inet","port":80}"#);
        assert_eq!(show(&[2]), "{}");
    }
}
