//! The host's page of three old system calls.

/// `VSYSCALL_ADDR`.
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// The number of the system call that an address on the page stands for.
pub(crate) fn call(addr: u64) -> Option<u64> {
    const CALLS: [i64; 3] = [libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_getcpu];
    let place = addr.checked_sub(VSYSCALL)?;
    CALLS.get(usize::try_from(place / 1024).ok()?).map(|call| call.cast_unsigned())
}
