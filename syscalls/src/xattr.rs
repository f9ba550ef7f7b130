//! Extended attributes: `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)`.
use abi::Errno;
use abi::fs::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX};
use vfs::{At, FileDescription, LookupFlags, Path, Vfs};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

type Ptr = UserPtr<u8>;

/// Whose attributes.
#[derive(Clone, Copy)]
enum Target {
    Path(Ptr),
    Link(Ptr),
    Fd(Fd),
    At(Fd, Ptr, u32),
}

fn on<R>(
    cx: &Cx<'_>,
    target: Target,
    f: impl FnOnce(&Vfs<'_>, &Path) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let (path, flags) = match target {
        Target::Path(path) => (path, LookupFlags::FOLLOW),
        Target::Link(path) => (path, LookupFlags::NO_FOLLOW),
        Target::At(fd, path, flags) => return on_at(cx, fd, path, flags, f),
        Target::Fd(fd) => {
            let file = cx.file(fd)?;
            let open = FileDescription::from_file(&file).filter(|d| !d.is_path_only()).ok_or(Errno::EBADF)?;
            return cx.vfs(|vfs| f(vfs, open.path()));
        }
    };
    let path = cx.path(path)?;
    cx.vfs(|vfs| f(vfs, &vfs.resolve(&At::Cwd, &path, flags)?))
}

/// The calls that take a directory, a path and `AT_*`.
fn on_at<R>(
    cx: &Cx<'_>,
    fd: Fd,
    path: Ptr,
    flags: u32,
    f: impl FnOnce(&Vfs<'_>, &Path) -> Result<R, Errno>,
) -> Result<R, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (at, path) = cx.at_or_empty(fd, path, flags)?;
    cx.vfs(|vfs| f(vfs, &vfs.resolve(&at, &path, LookupFlags::from_at(flags))?))
}

/// Copies the name of an attribute in.
fn name(cx: &Cx<'_>, name: Ptr) -> Result<Vec<u8>, Errno> {
    let name = cx.memory()?.read_cstr(name.addr(), XATTR_NAME_MAX + 1).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::ERANGE,
        other => other,
    })?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Copies a value out; without room, tells how much it takes.
fn store(cx: &Cx<'_>, bytes: &[u8], to: Ptr, room: usize) -> Result<usize, Errno> {
    if room == 0 {
        return Ok(bytes.len());
    }
    if bytes.len() > room {
        return Err(Errno::ERANGE);
    }
    cx.memory()?.write_bytes(to.addr(), bytes)?;
    Ok(bytes.len())
}

fn set(cx: &Cx<'_>, target: Target, key: Ptr, value: Ptr, size: usize, flags: u32) -> Result<usize, Errno> {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    let key = name(cx, key)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    cx.memory()?.read_bytes(value.addr(), &mut bytes)?;
    on(cx, target, |vfs, path| vfs.set_xattr(path, &key, &bytes, flags)).map(|()| 0)
}

fn get(cx: &Cx<'_>, target: Target, key: Ptr, value: Ptr, size: usize) -> Result<usize, Errno> {
    let key = name(cx, key)?;
    let bytes = on(cx, target, |vfs, path| vfs.get_xattr(path, &key))?;
    store(cx, &bytes, value, size.min(XATTR_SIZE_MAX))
}

fn list(cx: &Cx<'_>, target: Target, to: Ptr, size: usize) -> Result<usize, Errno> {
    let bytes = on(cx, target, |vfs, path| vfs.list_xattr(path))?;
    store(cx, &bytes, to, size.min(XATTR_LIST_MAX))
}

fn remove(cx: &Cx<'_>, target: Target, key: Ptr) -> Result<usize, Errno> {
    let key = name(cx, key)?;
    on(cx, target, |vfs, path| vfs.remove_xattr(path, &key)).map(|()| 0)
}

macro_rules! calls {
    ($($variant:ident($ty:ty): $set:ident $get:ident $list:ident $remove:ident)*) => {$(
        #[doc = concat!("`", stringify!($set), "(2)`")]
        ///
        /// # Errors
        /// Those of setxattr(2).
        pub fn $set(
            cx: &mut Cx<'_>,
            target: $ty,
            key: Ptr,
            value: Ptr,
            size: usize,
            flags: u32,
        ) -> Result<usize, Errno> {
            set(cx, Target::$variant(target), key, value, size, flags)
        }
        #[doc = concat!("`", stringify!($get), "(2)`")]
        ///
        /// # Errors
        /// Those of getxattr(2).
        pub fn $get(cx: &mut Cx<'_>, target: $ty, key: Ptr, value: Ptr, size: usize) -> Result<usize, Errno> {
            get(cx, Target::$variant(target), key, value, size)
        }
        #[doc = concat!("`", stringify!($list), "(2)`")]
        ///
        /// # Errors
        /// Those of listxattr(2).
        pub fn $list(cx: &mut Cx<'_>, target: $ty, to: Ptr, size: usize) -> Result<usize, Errno> {
            list(cx, Target::$variant(target), to, size)
        }
        #[doc = concat!("`", stringify!($remove), "(2)`")]
        ///
        /// # Errors
        /// Those of removexattr(2).
        pub fn $remove(cx: &mut Cx<'_>, target: $ty, key: Ptr) -> Result<usize, Errno> {
            remove(cx, Target::$variant(target), key)
        }
    )*};
}
calls! {
    Path(Ptr): setxattr getxattr listxattr removexattr
    Link(Ptr): lsetxattr lgetxattr llistxattr lremovexattr
    Fd(Fd): fsetxattr fgetxattr flistxattr fremovexattr
}

/// `struct xattr_args`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

fn args(cx: &Cx<'_>, at: Ptr, size: u64) -> Result<(Ptr, usize, u32), Errno> {
    if size < size_of::<XattrArgs>() as u64 {
        return Err(Errno::EINVAL);
    }
    let args: XattrArgs = crate::clone::read_extensible(cx, at.addr(), size)?;
    Ok((Ptr::new(args.value), usize::try_from(args.size).unwrap_or(usize::MAX), args.flags))
}

/// `setxattrat(2)`
///
/// # Errors
/// Those of setxattr(2), `EINVAL` for unknown flags, `E2BIG` for what is not known.
pub fn setxattrat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: Ptr,
    at_flags: u32,
    key: Ptr,
    at: Ptr,
    size: u64,
) -> Result<usize, Errno> {
    let (value, len, flags) = args(cx, at, size)?;
    set(cx, Target::At(fd, path, at_flags), key, value, len, flags)
}

/// `getxattrat(2)`
///
/// # Errors
/// Those of getxattr(2), `EINVAL` for unknown flags, `E2BIG` for what is not known.
pub fn getxattrat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: Ptr,
    at_flags: u32,
    key: Ptr,
    at: Ptr,
    size: u64,
) -> Result<usize, Errno> {
    let (value, len, flags) = args(cx, at, size)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    get(cx, Target::At(fd, path, at_flags), key, value, len)
}

/// `listxattrat(2)`
///
/// # Errors
/// Those of listxattr(2), `EINVAL` for unknown flags.
pub fn listxattrat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: Ptr,
    at_flags: u32,
    to: Ptr,
    size: usize,
) -> Result<usize, Errno> {
    list(cx, Target::At(fd, path, at_flags), to, size)
}

/// `removexattrat(2)`
///
/// # Errors
/// Those of removexattr(2), `EINVAL` for unknown flags.
pub fn removexattrat(cx: &mut Cx<'_>, fd: Fd, path: Ptr, at_flags: u32, key: Ptr) -> Result<usize, Errno> {
    remove(cx, Target::At(fd, path, at_flags), key)
}
