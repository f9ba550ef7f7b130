//! `/proc/sys`: what programs ask for; what can be changed is only what acts.
use abi::Errno;
use kernel::{Cap, Kernel};
use vfs::OpCx;

use super::Static;
use super::info::{RELEASE, VERSION};

fn line(text: impl AsRef<[u8]>) -> Vec<u8> {
    [text.as_ref(), b"\n"].concat()
}

fn uuid(kernel: &Kernel) -> Vec<u8> {
    let mut b = [0; 16];
    kernel.fill_random(&mut b);
    let n = u128::from_be_bytes(b) & !(0xf << 76) & !(3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{n:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|r| hex.get(r).unwrap_or_default().to_owned());
    line(parts.join("-"))
}

/// A number of the sandbox that stays: from the time of its start.
fn boot_id(kernel: &Kernel) -> Vec<u8> {
    let n =
        u128::from(kernel.boot_time_realtime_ns()).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let hex = format!("{n:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|r| hex.get(r).unwrap_or_default().to_owned());
    line(parts.join("-"))
}

fn set_name(cx: &OpCx<'_>, bytes: &[u8], set: impl FnOnce(&[u8])) -> Result<(), Errno> {
    if !cx.creds.has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let name = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if name.len() > 64 {
        return Err(Errno::EINVAL);
    }
    set(name);
    Ok(())
}

/// `/proc/sys`.
pub(super) static SYS: &[(&str, Static)] = &[
    ("fs", Static::Dir(FS)),
    ("kernel", Static::Dir(KERNEL)),
    ("net", Static::Dir(NET)),
    ("vm", Static::Dir(VM)),
];

static FS: &[(&str, Static)] = &[
    ("file-max", Static::Text("1048576\n")),
    ("file-nr", Static::Text("0\t0\t1048576\n")),
    ("inotify", Static::Dir(INOTIFY)),
    ("mqueue", Static::Dir(MQUEUE)),
    ("nr_open", Static::Text("1048576\n")),
    ("overflowgid", Static::Text("65534\n")),
    ("overflowuid", Static::Text("65534\n")),
    ("pipe-max-size", Static::Text("1048576\n")),
    ("protected_fifos", Static::Text("0\n")),
    ("protected_hardlinks", Static::Text("1\n")),
    ("protected_regular", Static::Text("0\n")),
    ("protected_symlinks", Static::Text("1\n")),
    ("suid_dumpable", Static::Text("0\n")),
];

static INOTIFY: &[(&str, Static)] = &[
    ("max_queued_events", Static::Text("16384\n")),
    ("max_user_instances", Static::Text("128\n")),
    ("max_user_watches", Static::Text("65536\n")),
];

/// What `fs-mqueue` goes by.
static MQUEUE: &[(&str, Static)] = &[
    ("msg_default", Static::Text("10\n")),
    ("msg_max", Static::Text("10\n")),
    ("msgsize_default", Static::Text("8192\n")),
    ("msgsize_max", Static::Text("8192\n")),
    ("queues_max", Static::Text("256\n")),
];

static KERNEL: &[(&str, Static)] = &[
    ("cap_last_cap", Static::Text("40\n")),
    ("core_pattern", Static::Text("core\n")),
    (
        "domainname",
        Static::Writable(
            |k| line(k.uts().names().domainname),
            |cx, k, bytes| set_name(cx, bytes, |name| k.uts().set_domainname(name)),
        ),
    ),
    (
        "hostname",
        Static::Writable(
            |k| line(k.uts().names().hostname),
            |cx, k, bytes| set_name(cx, bytes, |name| k.uts().set_hostname(name)),
        ),
    ),
    ("msgmax", Static::Text("8192\n")),
    ("msgmnb", Static::Text("16384\n")),
    ("msgmni", Static::Text("32000\n")),
    ("ngroups_max", Static::Text("65536\n")),
    ("osrelease", Static::File(|_| line(RELEASE))),
    ("ostype", Static::Text("Linux\n")),
    ("overflowgid", Static::Text("65534\n")),
    ("overflowuid", Static::Text("65534\n")),
    ("panic", Static::Text("0\n")),
    ("pid_max", Static::Text("32768\n")),
    ("printk", Static::Text("4\t4\t1\t7\n")),
    ("random", Static::Dir(RANDOM)),
    ("randomize_va_space", Static::Text("2\n")),
    ("sem", Static::Text("32000\t1024000000\t500\t32000\n")),
    ("shmall", Static::Text("18446744073692774399\n")),
    ("shmmax", Static::Text("18446744073692774399\n")),
    ("shmmni", Static::Text("4096\n")),
    ("tainted", Static::Text("0\n")),
    ("threads-max", Static::Text("32768\n")),
    ("version", Static::File(|_| line(VERSION))),
];

static RANDOM: &[(&str, Static)] = &[
    ("boot_id", Static::File(boot_id)),
    ("entropy_avail", Static::Text("256\n")),
    ("poolsize", Static::Text("256\n")),
    ("uuid", Static::File(uuid)),
];

static NET: &[(&str, Static)] = &[("core", Static::Dir(NET_CORE)), ("unix", Static::Dir(NET_UNIX))];
static NET_CORE: &[(&str, Static)] = &[
    ("rmem_default", Static::Text("212992\n")),
    ("rmem_max", Static::Text("212992\n")),
    ("somaxconn", Static::Text("4096\n")),
    ("wmem_default", Static::Text("212992\n")),
    ("wmem_max", Static::Text("212992\n")),
];
static NET_UNIX: &[(&str, Static)] = &[("max_dgram_qlen", Static::Text("10\n"))];

static VM: &[(&str, Static)] = &[
    ("max_map_count", Static::Text("65530\n")),
    ("mmap_min_addr", Static::Text("65536\n")),
    ("overcommit_memory", Static::Text("0\n")),
    ("overcommit_ratio", Static::Text("50\n")),
    ("swappiness", Static::Text("60\n")),
];

/// `/proc/sysvipc`: there are no such objects yet.
pub(super) static SYSVIPC: &[(&str, Static)] = &[
    (
        "msg",
        Static::Text(
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
        ),
    ),
    (
        "sem",
        Static::Text(
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
        ),
    ),
    (
        "shm",
        Static::Text(
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
        ),
    ),
];
