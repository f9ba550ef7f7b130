//! Running programs: `execve(2)`, `execveat(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::MS_NOSUID;
use abi::fs::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW};
use abi::stat::{S_ISGID, S_ISUID, S_IXGRP};
use kernel::{CapSet, ExecFile, ExecImage, ExecStrings, FileCaps, RLIMIT_STACK};
use memmap::IoDst;
use vfs::{At, FileDescription, FsContext, LookupFlags, OpCx, Vfs};

use crate::Cx;
use crate::decode::{Fd, UserPtr};
use crate::observe;

/// The longest string, with its terminator, Linux `MAX_ARG_STRLEN`.
const STRING_MAX: usize = 32 * 4096;
/// What all strings together may always take, Linux `ARG_MAX`.
const ARG_MAX: u64 = 32 * 4096;
/// What they may take at most, three quarters of Linux's `_STK_LIM`.
const TOTAL_MAX: u64 = 6 << 20;

/// Copies vectors of strings in, within one limit.
struct Strings {
    room: u64,
}

impl Strings {
    fn new(cx: &Cx<'_>) -> Self {
        Self { room: (cx.limit(RLIMIT_STACK) / 4).clamp(ARG_MAX, TOTAL_MAX) }
    }

    fn take(&mut self, n: usize) -> Result<(), Errno> {
        self.room = self.room.checked_sub(n as u64).ok_or(Errno::E2BIG)?;
        Ok(())
    }

    fn read(&mut self, cx: &Cx<'_>, vector: UserPtr<u64>) -> Result<Vec<Vec<u8>>, Errno> {
        let mut strings = Vec::new();
        if vector.is_null() {
            return Ok(strings);
        }
        loop {
            let at = vector.at(strings.len())?.read(cx)?;
            if at == 0 {
                return Ok(strings);
            }
            let string = cx.memory()?.read_cstr(at, STRING_MAX).map_err(|errno| match errno {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                other => other,
            })?;
            self.take(string.len() + 1 + size_of::<u64>())?;
            strings.push(string);
        }
    }
}

/// The path that programs and scripts get to see of a file named by a descriptor.
fn shown_path(fd: Fd, path: Vec<u8>) -> Vec<u8> {
    if fd == Fd::CWD || path.first() == Some(&b'/') {
        return path;
    }
    let mut shown = format!("/dev/fd/{}", fd.0).into_bytes();
    if !path.is_empty() {
        shown.push(b'/');
        shown.extend_from_slice(&path);
    }
    shown
}

const VFS_CAP_REVISION_2: u32 = 0x0200_0000;
const VFS_CAP_REVISION_3: u32 = 0x0300_0000;
const VFS_CAP_FLAGS_EFFECTIVE: u32 = 1;

/// Decodes the attribute `security.capability`, Linux `struct vfs_ns_cap_data`. Capabilities for the root of another user
/// namespace do not count here.
fn file_caps(bytes: &[u8]) -> Option<FileCaps> {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
    let (magic, low, inheritable_low, high, inheritable_high) = match words[..] {
        [magic, a, b, c, d] if magic & !1 == VFS_CAP_REVISION_2 => (magic, a, b, c, d),
        [magic, a, b, c, d, 0] if magic & !1 == VFS_CAP_REVISION_3 => (magic, a, b, c, d),
        _ => return None,
    };
    let set = |low: u32, high: u32| CapSet(u64::from(low) | u64::from(high) << 32).intersection(CapSet::FULL);
    rest.is_empty().then(|| FileCaps {
        permitted: set(low, high),
        inheritable: set(inheritable_low, inheritable_high),
        effective: magic & VFS_CAP_FLAGS_EFFECTIVE != 0,
    })
}

/// What a program's file says of the credentials of those who execute it, as far as its mount lets it.
///
/// # Errors
/// Those of reading attributes.
pub fn attributes(vfs: &Vfs<'_>, file: &FileDescription) -> Result<ExecFile, Errno> {
    let path = file.path();
    if path.mount.has_flags(MS_NOSUID) {
        return Ok(ExecFile::default());
    }
    let inode = path.inode()?;
    let meta = inode.metadata()?;
    let setgid = S_ISGID | S_IXGRP;
    Ok(ExecFile {
        setuid: (meta.mode & S_ISUID != 0).then_some(meta.uid),
        setgid: (meta.mode & setgid == setgid).then_some(meta.gid),
        caps: inode.get_xattr(&vfs.cx, b"security.capability").ok().as_deref().and_then(file_caps),
    })
}

/// Opens a program.
///
/// # Errors
/// Those of execve(2).
fn open_image(vfs: &Vfs<'_>, at: &At, path: &[u8], flags: LookupFlags) -> Result<ExecImage, Errno> {
    let file = vfs.open_exec(at, path, flags)?;
    let attributes = attributes(vfs, &file)?;
    Ok(ExecImage { file, path: path.to_vec(), attributes })
}

/// Tells whether a program names an interpreter in its first line.
fn is_script(cx: &Cx<'_>, image: &ExecImage) -> Result<bool, Errno> {
    let mut head = [0; 2];
    let n = image.file.pread(cx, &mut IoDst::kernel(&mut head), 0)?;
    Ok(n == 2 && head == *b"#!")
}

/// `execveat(2)`
///
/// # Errors
/// Those of execve(2), `EINVAL` for unknown flags.
pub fn execveat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: UserPtr<u8>,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = cx.path_or_null(path, flags & AT_EMPTY_PATH != 0)?;
    let at = At::from_fd_for(cx, fd.0, &path)?;
    let mut image = cx.vfs(|vfs| open_image(vfs, &at, &path, LookupFlags::from_at(flags)))?;
    let named_by_fd = fd.0 != AT_FDCWD && path.first() != Some(&b'/');
    if named_by_fd && cx.fds()?.get_with_flags(fd.0)?.1 && is_script(cx, &image)? {
        // The interpreter could not open what exec closes, Linux `load_script`.
        return Err(Errno::ENOENT);
    }
    let mut strings = Strings::new(cx);
    let mut argv = strings.read(cx, argv)?;
    if argv.is_empty() {
        // As Linux since 5.18, so that no program finds its environment as its arguments.
        argv.push(Vec::new());
    }
    let envp = strings.read(cx, envp)?;
    image.path = shown_path(fd, path);
    let (task, creds, fs) = (Arc::clone(cx.task()), cx.credentials(), FsContext::of(cx)?);
    let open = move |path: &[u8]| {
        open_image(&Vfs::new(OpCx::of_task(&task, &creds), &fs), &At::Cwd, path, LookupFlags::FOLLOW)
    };
    let program = observe::program(cx, &image.file, &argv);
    cx.cur.exec(image, ExecStrings { argv, envp }, &open)?;
    observe::executed(cx, program.as_ref());
    Ok(0)
}

/// `execve(2)`
///
/// # Errors
/// `EFAULT`, `E2BIG`, `ENOENT`, `EACCES`, `ENOEXEC`, `ELIBBAD`, `ELOOP`, `ENOMEM`, `ETXTBSY`, and those of path resolution.
pub fn execve(
    cx: &mut Cx<'_>,
    path: UserPtr<u8>,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
) -> Result<usize, Errno> {
    execveat(cx, Fd::CWD, path, argv, envp, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_files() {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let ping = words(&[VFS_CAP_REVISION_2 | 1, 1 << 13, 0, 0, 0]);
        let caps = file_caps(&ping).expect("valid");
        assert_eq!((caps.permitted, caps.effective), (CapSet(1 << 13), true));
        assert!(file_caps(&words(&[VFS_CAP_REVISION_3, 1, 0, 0, 0, 1000])).is_none());
        assert!(file_caps(&ping[..19]).is_none() && file_caps(&[]).is_none());
    }

    #[test]
    fn descriptors_have_paths() {
        assert_eq!(shown_path(Fd(5), Vec::new()), b"/dev/fd/5");
        assert_eq!(shown_path(Fd(5), b"a/b".to_vec()), b"/dev/fd/5/a/b");
        assert_eq!(shown_path(Fd(5), b"/a".to_vec()), b"/a");
        assert_eq!(shown_path(Fd::CWD, b"a".to_vec()), b"a");
    }
}
