//! The initial stack, Linux `fs/binfmt_elf.c:create_elf_tables`.
use abi::Errno;
use abi::elf::at;

use super::elf::Program;
use super::{ExecStrings, LoadContext, PAGE};
use crate::Credentials;

/// Linux `MAX_ARG_STRLEN`: one string with its terminator.
const MAX_STRING: usize = 32 * 4096;
/// Linux `MAX_ARG_STRINGS`.
const MAX_STRINGS: usize = 0x7fff_ffff;
/// Linux `_STK_LIM / 4 * 3`: all strings and pointers, however high the limit on the stack.
const MAX_TOTAL: u64 = 6 << 20;
/// Linux `ARG_MAX`: what is allowed however low that limit.
const MIN_TOTAL: u64 = 131_072;

/// The ids that the auxiliary vector tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Whether the program gained privileges (`AT_SECURE`).
    pub secure: bool,
}

impl Ids {
    pub(super) const fn of(credentials: &Credentials, secure: bool) -> Self {
        let Credentials { uid, euid, gid, egid, .. } = *credentials;
        Self { uid, euid, gid, egid, secure }
    }
}

/// Fills a buffer from its end towards its start, as a stack grows.
struct Downward {
    /// The stack's bytes so far, last byte first.
    reversed: Vec<u8>,
    /// The address after the last byte.
    top: u64,
}

impl Downward {
    fn address(&self) -> u64 {
        self.top - self.reversed.len() as u64
    }
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.reversed.extend(bytes.iter().rev());
        self.address()
    }
    fn push_string(&mut self, string: &[u8]) -> u64 {
        self.reversed.push(0);
        self.push(string)
    }
    fn align(&mut self, to: u64) {
        while !self.address().is_multiple_of(to) {
            self.reversed.push(0);
        }
    }
}

/// Checks the strings against the limits of execve(2).
fn check_size(strings: &ExecStrings, filename: &[u8], stack_limit: u64) -> Result<(), Errno> {
    let all = || strings.argv.iter().chain(&strings.envp);
    if all().count() > MAX_STRINGS || all().any(|s| s.len() >= MAX_STRING) {
        return Err(Errno::E2BIG);
    }
    let limit = (stack_limit / 4).clamp(MIN_TOTAL, MAX_TOTAL);
    let bytes: u64 = all().map(|s| s.len() as u64 + 9).sum::<u64>() + filename.len() as u64 + 1;
    if bytes > limit { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Maps the stack and fills it; gives the initial stack pointer.
pub(super) fn build(
    cx: &LoadContext<'_>,
    program: &Program,
    ids: Ids,
    filename: &[u8],
    strings: &ExecStrings,
) -> Result<u64, Errno> {
    check_size(strings, filename, cx.stack_limit)?;
    let stack = cx.mm.map_stack(cx.stack_limit, program.executable_stack)?;
    let mut random = [0; 16];
    cx.task.kernel().fill_random(&mut random);
    let mut out = Downward { reversed: Vec::new(), top: stack.end };
    out.push(&[0; 8]);
    let filename = out.push_string(filename);
    let env_end = filename;
    let mut envp: Vec<u64> = strings.envp.iter().rev().map(|s| out.push_string(s)).collect();
    let env_start = out.address();
    let mut argv: Vec<u64> = strings.argv.iter().rev().map(|s| out.push_string(s)).collect();
    if strings.argv.is_empty() {
        // Linux since 5.18 gives a program without arguments one empty argument.
        argv.push(out.push_string(b""));
    }
    let arg_start = out.address();
    envp.reverse();
    argv.reverse();
    out.align(16);
    let platform = out.push_string(b"x86_64");
    let random = out.push(&random);
    out.align(16);
    let auxv = auxv(cx, program, ids, [filename, platform, random]);
    let words = 1 + argv.len() + 1 + envp.len() + 1 + auxv.len();
    if !words.is_multiple_of(2) {
        out.push(&[0; 8]);
    }
    let argc = argv.len() as u64;
    let table = [argc].into_iter().chain(argv).chain([0]).chain(envp).chain([0]).chain(auxv.iter().copied());
    let table: Vec<u8> = table.flat_map(u64::to_ne_bytes).collect();
    let pointer = out.push(&table);
    out.reversed.reverse();
    cx.mm.write_bytes(pointer, &out.reversed)?;
    let mut layout = program.layout;
    layout.start_stack = pointer;
    (layout.arg_start, layout.arg_end) = (arg_start, env_start);
    (layout.env_start, layout.env_end) = (env_start, env_end);
    cx.mm.set_layout(layout);
    cx.mm.set_auxv(auxv);
    Ok(pointer)
}

/// The auxiliary vector, in the order Linux writes it; strings are those for `AT_EXECFN`, `AT_PLATFORM`, `AT_RANDOM`.
fn auxv(
    cx: &LoadContext<'_>,
    program: &Program,
    ids: Ids,
    [filename, platform, random]: [u64; 3],
) -> Vec<u64> {
    let mut auxv = Vec::with_capacity(48);
    let mut put = |kind: u64, value: u64| auxv.extend([kind, value]);
    if let Some(vdso) = cx.host.vdso {
        put(at::SYSINFO_EHDR, vdso);
    }
    put(at::MINSIGSTKSZ, cx.host.min_signal_stack);
    put(at::HWCAP, cx.host.hwcap);
    put(at::PAGESZ, PAGE);
    put(at::CLKTCK, 100);
    put(at::PHDR, program.phdr);
    put(at::PHENT, program.phent);
    put(at::PHNUM, program.phnum);
    put(at::BASE, program.interpreter_base);
    put(at::FLAGS, 0);
    put(at::ENTRY, program.entry);
    put(at::UID, u64::from(ids.uid));
    put(at::EUID, u64::from(ids.euid));
    put(at::GID, u64::from(ids.gid));
    put(at::EGID, u64::from(ids.egid));
    put(at::SECURE, u64::from(ids.secure));
    put(at::RANDOM, random);
    put(at::HWCAP2, cx.host.hwcap2);
    put(at::EXECFN, filename);
    put(at::PLATFORM, platform);
    put(at::NULL, 0);
    auxv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_beyond_the_limits_are_refused() {
        let strings = |n: usize, len: usize| ExecStrings { argv: vec![vec![b'a'; len]; n], envp: Vec::new() };
        assert_eq!(check_size(&strings(1, MAX_STRING - 1), b"f", 8 << 20), Ok(()));
        assert_eq!(check_size(&strings(1, MAX_STRING), b"f", 8 << 20), Err(Errno::E2BIG));
        assert_eq!(check_size(&strings(30, 100_000), b"f", 8 << 20), Err(Errno::E2BIG));
        assert_eq!(check_size(&strings(30, 100_000), b"f", u64::MAX), Ok(()));
        assert_eq!(check_size(&strings(2, 100_000), b"f", 0), Err(Errno::E2BIG));
    }

    #[test]
    fn the_stack_grows_down() {
        let mut out = Downward { reversed: Vec::new(), top: 0x1000 };
        assert_eq!(out.push_string(b"ab"), 0xffd);
        assert_eq!(out.push(&[1, 2]), 0xffb);
        out.reversed.reverse();
        assert_eq!(out.reversed, [1, 2, b'a', b'b', 0]);
    }
}
