//! Requests of ioctl(2) that every file knows, Linux `fs/ioctl.c:do_vfs_ioctl`.
use abi::Errno;
use abi::fs::{FASYNC, O_NONBLOCK};
use abi::stat::S_IFREG;
use kernel::{File, Task};

use crate::FileDescription;
use crate::tty::{Master, open_peer};

const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const FIGETBSZ: u32 = 2;
const TIOCGPTPEER: u32 = 0x5441;

fn read_flag(task: &Task, arg: u64) -> Result<bool, Errno> {
    let mm = task.mm().ok_or(Errno::EFAULT)?;
    Ok(mm.read_obj::<i32>(arg)? != 0)
}

fn write_int(task: &Task, arg: u64, value: i32) -> Result<usize, Errno> {
    let mm = task.mm().ok_or(Errno::EFAULT)?;
    mm.write_obj(arg, &value)?;
    Ok(0)
}

fn set_flag(file: &FileDescription, task: &Task, arg: u64, flag: u32) -> Result<usize, Errno> {
    let on = read_flag(task, arg)?;
    let flags = file.flags() & !flag | if on { flag } else { 0 };
    file.set_status_flags(task, flags)?;
    Ok(0)
}

/// Answers a request, or asks the file.
pub(crate) fn ioctl(file: &FileDescription, task: &Task, cmd: u32, arg: u64) -> Result<usize, Errno> {
    match cmd {
        FIONBIO => set_flag(file, task, arg, O_NONBLOCK),
        FIOASYNC => set_flag(file, task, arg, FASYNC),
        FIONREAD if file.file_type() == S_IFREG => {
            let size = file.stat(task)?.size;
            let left = size.saturating_sub(file.position());
            write_int(task, arg, i32::try_from(left & 0x7fff_ffff).unwrap_or(0))
        }
        FIGETBSZ => {
            let size = file.path().mount.sb().fs().stat_fs()?.bsize;
            write_int(task, arg, i32::try_from(size).or(Err(Errno::EINVAL))?)
        }
        TIOCGPTPEER if let Some(master) = file.ops().downcast_ref::<Master>() => {
            open_peer(file, master, task, arg)
        }
        _ => file.ops().ioctl(&file.cx(task), cmd, arg),
    }
}
