//! The home directory of a user, from the container's own /etc/passwd.
use std::sync::Arc;

use abi::fs::O_RDONLY;
use abi::stat::{S_IFMT, S_IFREG};
use memmap::IoDst;
use vfs::{At, LookupFlags, Vfs};

/// As much of the file as is looked at.
const MAX: usize = 1 << 20;

/// The directory of a user; `/` where the container does not say.
pub(super) fn of(vfs: &Vfs<'_>, uid: u32) -> String {
    read(vfs).and_then(|text| find(&text, uid)).unwrap_or_else(|| "/".to_owned())
}

fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let owner = fields.get(2)?.parse::<u32>().ok()?;
        let home = fields.get(5).filter(|home| !home.is_empty())?;
        (owner == uid).then(|| (*home).to_owned())
    })
}

fn read(vfs: &Vfs<'_>) -> Option<String> {
    let path = vfs.resolve(&At::Cwd, b"/etc/passwd", LookupFlags::FOLLOW).ok()?;
    let inode = path.inode().ok()?;
    if inode.metadata().ok()?.mode & S_IFMT != S_IFREG {
        return None;
    }
    let file = Arc::clone(inode).open(&vfs.cx, O_RDONLY).ok()?;
    let mut text = vec![0; 4096];
    let mut length = 0;
    while length < MAX {
        text.resize((length * 2).clamp(4096, MAX), 0);
        let rest = text.get_mut(length..)?;
        let n = file.read_at(&vfs.cx, &mut IoDst::kernel(rest), length as u64).ok()?;
        if n == 0 {
            break;
        }
        length += n;
    }
    text.truncate(length);
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_the_user() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:7:7::/home/me:/bin/sh\nnone:x:8:8:::\n";
        assert_eq!(find(text, 7).as_deref(), Some("/home/me"));
        assert_eq!(find(text, 0).as_deref(), Some("/root"));
        assert_eq!(find(text, 8), None);
        assert_eq!(find(text, 9), None);
    }
}
