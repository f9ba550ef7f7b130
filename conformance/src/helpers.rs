//! What cases execute when they need a program: `guest helper NAME [ARG]...`.

use std::process::ExitCode;

/// The word at an offset from the initial stack pointer, found from where libc keeps the arguments.
fn stack_layout() -> bool {
    // SAFETY: libc's own variable, set before main; the vector before it is argv, and argc lies below that.
    let (argc, envp) = unsafe {
        unsafe extern "C" {
            static environ: *const *const libc::c_char;
        }
        let mut below = environ.sub(1);
        let mut count = 0u64;
        // Back over the null that ends argv, to the word that counts what lies between.
        loop {
            below = below.sub(1);
            if *below as u64 == count {
                break (count, environ);
            }
            count += 1;
            if count > 100 {
                return false;
            }
        }
    };
    // SAFETY: argc's place is 16-byte aligned by the ABI; both vectors end with null.
    unsafe {
        let argc_at = envp as usize - 8 * (argc as usize + 2);
        argc == 4 && argc_at.is_multiple_of(16) && (*envp.sub(1)).is_null() && !(*envp).is_null()
    }
}

/// What an interpreter named `args` does: prints all arguments, a line each.
pub(crate) fn args(all: &[String]) -> ExitCode {
    for arg in all {
        println!("{arg}");
    }
    ExitCode::SUCCESS
}

fn cat(path: &str) -> ExitCode {
    match std::fs::read(path).map(|data| std::io::Write::write_all(&mut std::io::stdout(), &data)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn ids() -> ExitCode {
    let (mut r, mut e, mut s) = (0, 0, 0);
    let (mut rg, mut eg, mut sg) = (0, 0, 0);
    // SAFETY: six valid pointers.
    unsafe {
        libc::getresuid(&mut r, &mut e, &mut s);
        libc::getresgid(&mut rg, &mut eg, &mut sg);
    }
    println!("{r} {e} {s} {rg} {eg} {sg}");
    ExitCode::SUCCESS
}

/// Runs one helper; 2 for an unknown name.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let rest = args.get(1..).unwrap_or_default();
    let number = |index: usize| rest.get(index).and_then(|s| s.parse::<i64>().ok()).unwrap_or(0);
    match args.first().map(String::as_str) {
        // exit CODE
        Some("exit") => ExitCode::from(number(0) as u8),
        // echo ARG..: the arguments, a line each
        Some("echo") => {
            for arg in rest {
                println!("{arg}");
            }
            ExitCode::SUCCESS
        }
        // env: the environment, a line each
        Some("env") => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
            ExitCode::SUCCESS
        }
        // fd-open FD: 0 when the descriptor is open, 1 when not
        Some("fd-open") => {
            // SAFETY: F_GETFD takes no pointer.
            let open = unsafe { libc::fcntl(number(0) as i32, libc::F_GETFD) } >= 0;
            ExitCode::from(u8::from(!open))
        }
        // sig-ignored SIGNAL: 0 when its action is SIG_IGN, 1 when it is SIG_DFL, 2 for a handler
        Some("sig-ignored") => {
            // SAFETY: sigaction is plain data, and the pointer is valid for writing.
            let action = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(number(0) as i32, std::ptr::null(), &mut action);
                action
            };
            ExitCode::from(match action.sa_sigaction {
                libc::SIG_IGN => 0,
                libc::SIG_DFL => 1,
                _ => 2,
            })
        }
        // pid: its process and its thread
        Some("pid") => {
            // SAFETY: no arguments.
            println!("{} {}", std::process::id(), unsafe { libc::gettid() });
            ExitCode::SUCCESS
        }
        // comm: the name of the process
        Some("comm") => cat("/proc/self/comm"),
        // cat FILE
        Some("cat") => cat(rest.first().map_or("", String::as_str)),
        // readlink PATH
        Some("readlink") => match std::fs::read_link(rest.first().map_or("", String::as_str)) {
            Ok(target) => {
                println!("{}", target.display());
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        },
        // ids: real, effective and saved user and group
        Some("ids") => ids(),
        // say-and-pause: writes a byte and sleeps until a signal
        Some("say-and-pause") => {
            // SAFETY: one valid byte; no arguments.
            unsafe {
                libc::write(1, c"x".as_ptr().cast(), 1);
                libc::pause();
            }
            ExitCode::SUCCESS
        }
        // stack-layout: checks the initial stack
        Some("stack-layout") => {
            println!("{}", if stack_layout() { "ok" } else { "wrong" });
            ExitCode::SUCCESS
        }
        // pause: sleeps until a signal
        Some("pause") => {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("guest: unknown helper {other:?}");
            ExitCode::from(2)
        }
    }
}
