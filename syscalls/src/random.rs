//! Random bytes: `getrandom(2)`.
use abi::Errno;
use abi::uio::MAX_RW_COUNT;

use crate::Cx;
use crate::decode::UserPtr;

const GRND_NONBLOCK: u32 = 1;
const GRND_RANDOM: u32 = 2;
const GRND_INSECURE: u32 = 4;
/// How many bytes are made at a time.
const CHUNK: usize = 4096;

/// `getrandom(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getrandom(cx: &mut Cx<'_>, buf: UserPtr<u8>, len: usize, flags: u32) -> Result<usize, Errno> {
    let both = GRND_RANDOM | GRND_INSECURE;
    if flags & !(GRND_NONBLOCK | both) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let mm = std::sync::Arc::clone(cx.memory()?);
    let mut dst = Cx::dst(&mm, buf, len.min(MAX_RW_COUNT))?;
    let mut bytes = vec![0; CHUNK.min(dst.remaining())];
    while dst.remaining() > 0 {
        let n = dst.remaining().min(CHUNK);
        let Some(chunk) = bytes.get_mut(..n) else { break };
        cx.kernel().fill_random(chunk);
        match dst.write(chunk) {
            Ok(stored) if stored == n && !kernel::signal::has_work(cx) => {}
            Ok(_) => break,
            Err(_) if dst.done() > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(dst.done())
}
