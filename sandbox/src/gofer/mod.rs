//! The gofer: serves host files to the sentry.
mod connect;

pub(crate) use connect::connect;

use fs_9p::localfs::{Export, LocalFs};
use fs_9p::server::{Limits, serve};
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;

use crate::launch::{CHANNEL_FD, mount_point};
use crate::{seccomp, sys};

/// The program `runsc gofer`, which serves a tree for each letter of `access`: `w` if it may be written to. Returns its
/// exit code. It reports in JSON if `format` is `json`.
#[must_use]
pub fn main(access: &str, format: &str) -> i32 {
    sys::bound_arenas();
    match run(access) {
        Ok(()) => 0,
        Err(error) => {
            let line =
                crate::boot::report::format_line(format == "json", "error", &format!("gofer: {error}"));
            // The report may be nowhere.
            let _unheard = nix::unistd::write(std::io::stderr(), line.as_bytes());
            1
        }
    }
}

fn run(access: &str) -> std::io::Result<()> {
    let socket = sys::take_fd(CHANNEL_FD)?;
    let own_files = sys::take_fd(CHANNEL_FD + 1)?;
    for fd in [&socket, &own_files] {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    nix::sys::prctl::set_name(c"runsc-gofer")?;
    // Every file that the sentry knows of is a descriptor here.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut exports = Vec::new();
    for (index, letter) in access.chars().enumerate() {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let root = nix::fcntl::open(&mount_point(index), flags, Mode::empty())?;
        exports.push(Export { name: index.to_string().into_bytes(), root, writable: letter == 'w' });
    }
    // Two threads of a real-time class on one CPU can wait for each other inside the host for ever: rmdir(2) spins until the
    // last close of what was in the directory is done (`shrink_dcache_parent`, fs/dcache.c).
    let follow = !sys::is_realtime();
    seccomp::install(&seccomp::gofer::rules()).map_err(std::io::Error::other)?;
    let errno = |errno: abi::Errno| std::io::Error::from_raw_os_error(i32::from(errno.raw()));
    let files = LocalFs::new(exports, own_files).map_err(errno)?;
    // The sentry's death ends the connection; that it died by a fault in the talk makes no difference.
    serve(socket, &files, Limits { follow, ..Limits::default() }).map_err(std::io::Error::other)
}
