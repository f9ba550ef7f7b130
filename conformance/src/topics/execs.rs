//! execve(2), execveat(2): arguments, scripts, what is kept and what is not, the auxiliary vector.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, self_exe, wait_for};
use crate::sys::{SysError, open, pipe, raw, sys};
use crate::util::{create, mkdir, symlink};
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

topic!(execs: [
    script_runs_its_interpreter,
    script_with_argument_and_blanks,
    script_of_a_script,
    script_interpreter_missing_or_too_long,
    script_loop_is_eloop,
    empty_and_short_files_are_enoexec,
    damaged_elf_files_are_refused,
    arguments_too_large_are_e2big,
    many_arguments_arrive,
    empty_argv_gets_an_empty_string,
    bad_pointers_are_efault,
    name_is_the_last_component,
    exe_and_cmdline_of_proc,
    execveat_of_a_descriptor,
    execveat_checks,
    script_by_cloexec_descriptor_is_enoent,
    noexec_errors,
    text_file_busy,
]);

/// A copy of this program in the current directory.
pub(super) fn copy_self(name: &str) -> CaseResult {
    std::fs::copy(self_exe().to_string_lossy().as_ref(), name)?;
    sys!(chmod(CString::new(name)?.as_ptr(), 0o755))?;
    Ok(())
}

pub(super) fn script(name: &str, text: &str) -> CaseResult {
    std::fs::write(name, text)?;
    sys!(chmod(CString::new(name)?.as_ptr(), 0o755))?;
    Ok(())
}

/// execve(2) with these strings; returns only on failure.
pub(super) fn exec(path: &CStr, argv: &[&CStr], env: &[&CStr]) -> SysError {
    let list = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (list(argv), list(env));
    match raw!(SYS_execve(path.as_ptr(), argv.as_ptr(), env.as_ptr())) {
        Err(error) => error,
        Ok(_) => SysError { call: "execve", line: line!(), errno: 0 },
    }
}

/// What a child prints that runs `body`, which is to execute something, and how it ended.
pub(super) fn output_of(body: impl FnOnce() -> SysError) -> CaseResult<(String, Ended)> {
    let (reader, writer) = pipe(libc::O_CLOEXEC)?;
    let child = fork_child(|| match sys!(dup2(writer.as_raw_fd(), 1)) {
        Ok(_) => body().errno,
        Err(_) => 99,
    })?;
    drop(writer);
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut output)?;
    Ok((String::from_utf8_lossy(&output).into_owned(), wait_for(child)?))
}

fn script_runs_its_interpreter() -> CaseResult {
    copy_self("guest")?;
    let here = std::env::current_dir()?;
    script("s", &format!("#!{}/guest helper\nignored\n", here.display()))?;
    // `#!interpreter argument` and then the script's name and its arguments.
    let (output, ended) = output_of(|| exec(c"./s", &[c"zero", c"one", c"two"], &[]))?;
    // The helper named "./s" does not exist: that it was asked for it is what counts.
    check_eq!((output.as_str(), ended), ("", Ended::Exited(2)));
    script("echo", &format!("#!{}/guest\n", here.display()))?;
    let (_, ended) = output_of(|| exec(c"./echo", &[c"x", c"y"], &[]))?;
    check_eq!(ended, Ended::Exited(2));
    Ok(())
}

/// An interpreter that prints its arguments, under a name without blanks, and the script that names it.
fn printing_script(name: &str, argument: &str) -> CaseResult {
    copy_self("args")?;
    script(name, &format!("#!{}/args{argument}\n", std::env::current_dir()?.display()))
}

fn script_with_argument_and_blanks() -> CaseResult {
    // Everything after the first blank is one argument, without the blanks around it.
    printing_script("s", " \t one two \t ")?;
    let (output, ended) = output_of(|| exec(c"./s", &[c"zero", c"x"], &[]))?;
    let here = std::env::current_dir()?;
    check_eq!((output, ended), (format!("{}/args\none two\n./s\nx\n", here.display()), Ended::Exited(0)));
    printing_script("t", "")?;
    let (output, _) = output_of(|| exec(c"./t", &[c"zero", c"x", c""], &[]))?;
    check_eq!(output, format!("{}/args\n./t\nx\n\n", here.display()));
    Ok(())
}

fn script_of_a_script() -> CaseResult {
    printing_script("a", " A")?;
    let here = std::env::current_dir()?;
    script("b", &format!("#!{}/a B\n", here.display()))?;
    let (output, _) = output_of(|| exec(c"./b", &[c"zero", c"x"], &[]))?;
    let here = here.display();
    check_eq!(output, format!("{here}/args\nA\n{here}/a\nB\n./b\nx\n"));
    Ok(())
}

fn script_interpreter_missing_or_too_long() -> CaseResult {
    script("s", "#!/missing/interpreter\n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ENOENT);
    script("s", "#!\n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ENOEXEC);
    script("s", "#!   \n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ENOEXEC);
    script("s", &format!("#!/{}\n", "x".repeat(300)))?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ENOEXEC);
    mkdir(c"d")?;
    script("s", "#!./d\n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::EACCES);
    Ok(())
}

fn script_loop_is_eloop() -> CaseResult {
    script("s", "#!./s\n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ELOOP);
    Ok(())
}

fn empty_and_short_files_are_enoexec() -> CaseResult {
    for text in ["", "x", "#", "\x7fELF", "\x7fELF\x02\x01\x01"] {
        script("f", text)?;
        check_eq!(exec(c"./f", &[c"f"], &[]).errno, libc::ENOEXEC);
    }
    Ok(())
}

fn damaged_elf_files_are_refused() -> CaseResult {
    let good = std::fs::read(self_exe().to_string_lossy().as_ref())?;
    let mut head = good[..4096].to_vec();
    let refused = |bytes: &[u8]| -> CaseResult<i32> {
        std::fs::write("f", bytes)?;
        sys!(chmod(c"f".as_ptr(), 0o755))?;
        let child = fork_child(|| exec(c"./f", &[c"f"], &[]).errno)?;
        match wait_for(child)? {
            Ended::Exited(errno) => Ok(errno),
            // Past the point of no return.
            Ended::Killed(_) => Ok(-1),
            other => Err(format!("{other:?}").into()),
        }
    };
    // Class, byte order, type, machine, size of program headers, number of program headers.
    for (at, value) in [(4, 9), (16, 0), (18, 3), (54, 1), (56, 0), (57, 0xff)] {
        let old = head[at];
        head[at] = value;
        check!(refused(&head)? != 0, "byte {at}");
        head[at] = old;
    }
    check!(refused(&good[..64])? != 0);
    check!(refused(&good[..200])? != 0);
    Ok(())
}

fn arguments_too_large_are_e2big() -> CaseResult {
    let big = CString::new(vec![b'x'; 131_072])?;
    let (path, helper) = (self_exe(), c"helper");
    check_eq!(exec(&path, &[&path, helper, &big], &[]).errno, libc::E2BIG);
    let fits = CString::new(vec![b'x'; 131_071])?;
    let (output, ended) = output_of(|| exec(&path, &[&path, helper, c"echo", &fits], &[]))?;
    check_eq!((output.len(), ended), (131_072, Ended::Exited(0)));
    // The sum is limited to a quarter of the stack's limit.
    let many = vec![fits.as_c_str(); 20];
    check_eq!(exec(&path, &many, &many).errno, libc::E2BIG);
    Ok(())
}

fn many_arguments_arrive() -> CaseResult {
    let strings: Vec<CString> = (0..5000).map(|i| CString::new(i.to_string())).collect::<Result<_, _>>()?;
    let path = self_exe();
    let mut argv: Vec<&CStr> = vec![&path, c"helper", c"echo"];
    argv.extend(strings.iter().map(CString::as_c_str));
    let (output, ended) = output_of(|| exec(&path, &argv, &[]))?;
    check_eq!(ended, Ended::Exited(0));
    check!(output.lines().enumerate().all(|(i, line)| line == i.to_string()));
    check_eq!(output.lines().count(), 5000);
    Ok(())
}

fn empty_argv_gets_an_empty_string() -> CaseResult {
    // Without any argument the guest prints its usage and ends with 2.
    let path = self_exe();
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    for argv in [none.as_ptr(), std::ptr::null()] {
        let child = fork_child(|| {
            let _ = sys!(close(2));
            raw!(SYS_execve(path.as_ptr(), argv, std::ptr::null::<u8>())).map_or_else(|e| e.errno, |_| 0)
        })?;
        check_eq!(wait_for(child)?, Ended::Exited(2));
    }
    Ok(())
}

fn bad_pointers_are_efault() -> CaseResult {
    let path = self_exe();
    expect_errno!(raw!(SYS_execve(8, 0, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_execve(path.as_ptr(), 8, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_execve(path.as_ptr(), 0, 8)), libc::EFAULT);
    let bad = [8u64, 0];
    expect_errno!(raw!(SYS_execve(path.as_ptr(), bad.as_ptr(), 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_execve(c"".as_ptr(), 0, 0)), libc::ENOENT);
    Ok(())
}

fn name_is_the_last_component() -> CaseResult {
    copy_self("a-long-program-name")?;
    let (output, _) = output_of(|| exec(c"./a-long-program-name", &[c"x", c"helper", c"comm"], &[]))?;
    check_eq!(output, "a-long-program-\n");
    symlink(c"a-long-program-name", c"link")?;
    let (output, _) = output_of(|| exec(c"./link", &[c"x", c"helper", c"comm"], &[]))?;
    check_eq!(output, "link\n");
    Ok(())
}

fn exe_and_cmdline_of_proc() -> CaseResult {
    copy_self("prog")?;
    symlink(c"prog", c"link")?;
    let argv = [c"own name", c"helper", c"cat", c"/proc/self/cmdline"];
    let (output, _) = output_of(|| exec(c"./link", &argv, &[]))?;
    check_eq!(output, "own name\0helper\0cat\0/proc/self/cmdline\0");
    let (output, _) = output_of(|| exec(c"./link", &[c"x", c"helper", c"readlink", c"/proc/self/exe"], &[]))?;
    check_eq!(output, format!("{}/prog\n", std::env::current_dir()?.display()));
    Ok(())
}

fn execveat_of_a_descriptor() -> CaseResult {
    copy_self("prog")?;
    let file = open(c"prog", libc::O_PATH, 0)?;
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let argv = [c"x".as_ptr(), c"helper".as_ptr(), c"exit".as_ptr(), c"6".as_ptr(), std::ptr::null()];
    let at = |fd: i32, path: &CStr, flags: i32| {
        raw!(SYS_execveat(fd, path.as_ptr(), argv.as_ptr(), 0, flags)).map_or_else(|e| e.errno, |_| 0)
    };
    for (fd, path, flags) in [
        (file.as_raw_fd(), c"", libc::AT_EMPTY_PATH),
        (dir.as_raw_fd(), c"prog", 0),
        (libc::AT_FDCWD, c"prog", libc::AT_SYMLINK_NOFOLLOW),
    ] {
        let child = fork_child(|| at(fd, path, flags))?;
        check_eq!(wait_for(child)?, Ended::Exited(6));
    }
    // An unlinked program runs as well.
    sys!(unlink(c"prog".as_ptr()))?;
    let child = fork_child(|| at(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH))?;
    check_eq!(wait_for(child)?, Ended::Exited(6));
    Ok(())
}

fn execveat_checks() -> CaseResult {
    symlink(c"x", c"l")?;
    let at = |fd: i32, path: &CStr, flags: i32| raw!(SYS_execveat(fd, path.as_ptr(), 0, 0, flags));
    expect_errno!(at(libc::AT_FDCWD, c"l", libc::AT_SYMLINK_NOFOLLOW), libc::ELOOP);
    expect_errno!(at(libc::AT_FDCWD, c"l", 0x1), libc::EINVAL);
    expect_errno!(at(-1, c"l", 0), libc::EBADF);
    expect_errno!(at(libc::AT_FDCWD, c"", 0), libc::ENOENT);
    let file = create(c"f", b"")?;
    expect_errno!(at(file.as_raw_fd(), c"x", 0), libc::ENOTDIR);
    Ok(())
}

fn script_by_cloexec_descriptor_is_enoent() -> CaseResult {
    printing_script("s", "")?;
    let argv = [c"zero".as_ptr(), c"x".as_ptr(), std::ptr::null()];
    let run = |flags: i32| -> CaseResult<(String, Ended)> {
        let file = open(c"s", libc::O_RDONLY | flags, 0)?;
        let fd = file.as_raw_fd();
        sys!(dup3(fd, 77, flags))?;
        let empty = libc::AT_EMPTY_PATH;
        let result = output_of(|| match raw!(SYS_execveat(77, c"".as_ptr(), argv.as_ptr(), 0, empty)) {
            Err(error) => error,
            Ok(_) => SysError { call: "", line: 0, errno: 0 },
        });
        sys!(close(77))?;
        result
    };
    let (output, ended) = run(0)?;
    check!(output.ends_with("/args\n/dev/fd/77\nx\n"), "{output:?}, {ended:?}");
    // The interpreter could not open what exec closes.
    check_eq!(run(libc::O_CLOEXEC)?.1, Ended::Exited(libc::ENOENT));
    Ok(())
}

fn noexec_errors() -> CaseResult {
    create(c"f", b"")?;
    check_eq!(exec(c"./f", &[], &[]).errno, libc::EACCES);
    check_eq!(exec(c"./f/x", &[], &[]).errno, libc::ENOTDIR);
    symlink(c"l", c"l")?;
    check_eq!(exec(c"./l", &[], &[]).errno, libc::ELOOP);
    // Not even root executes what is a device, or what has no execute bit at all.
    check_eq!(exec(c"/dev/null", &[], &[]).errno, libc::EACCES);
    sys!(chmod(c"f".as_ptr(), 0o010))?;
    check_eq!(exec(c"./f", &[], &[]).errno, libc::ENOEXEC);
    Ok(())
}

fn text_file_busy() -> CaseResult {
    copy_self("prog")?;
    let writer = open(c"prog", libc::O_WRONLY, 0)?;
    check_eq!(exec(c"./prog", &[c"x"], &[]).errno, libc::ETXTBSY);
    drop(writer);
    let (reader, held) = pipe(0)?;
    let child = fork_child(|| {
        let _ = sys!(dup2(held.as_raw_fd(), 1));
        exec(c"./prog", &[c"x", c"helper", c"say-and-pause"], &[]).errno
    })?;
    check_eq!(crate::sys::read(reader.as_raw_fd(), &mut [0; 1])?, 1);
    expect_errno!(open(c"prog", libc::O_WRONLY, 0), libc::ETXTBSY);
    expect_errno!(sys!(truncate(c"prog".as_ptr(), 0)), libc::ETXTBSY);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    open(c"prog", libc::O_WRONLY, 0)?;
    Ok(())
}
