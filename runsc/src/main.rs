//! The OCI runtime command line.
#![forbid(unsafe_code)]

mod cgroup;
mod cli;
mod cmd;
mod console;
mod container;
mod events;
mod follow;
mod hooks;
mod ids;
mod launch;
mod log;
mod namespaces;
mod pod;
mod rootless;
mod state;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The programs of a sandbox; the launcher alone starts them.
    let word = |index: usize| args.get(index).and_then(|arg| arg.to_str());
    match (word(1), word(2)) {
        (Some("boot"), Some(_)) => return exit_code(sandbox::boot::main()),
        (Some("gofer"), Some(access)) => {
            return exit_code(sandbox::gofer::main(access, word(3).unwrap_or_default()));
        }
        (Some("keep-scope"), None) => return exit_code(cgroup::keep_scope()),
        (Some("proxy"), Some(pid)) => {
            let (terminal, format) = (word(3).unwrap_or_default(), word(4).unwrap_or_default());
            return exit_code(sandbox::proxy::main(pid, terminal, format, |proxy, ready| {
                follow::proxy(proxy, ready).map_err(|error| format!("{error:#}"))
            }));
        }
        _ => {}
    }
    let mut cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Err(error) = log::init(&cli.global) {
        log::complain(&error);
        return ExitCode::FAILURE;
    }
    match rootless::prepare(&mut cli.global, &cli.verb).and_then(|()| run(&cli)) {
        Ok(code) => exit_code(code),
        Err(error) => {
            log::fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn run(cli: &Cli) -> Result<i32> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Checkpoint(args) => cmd::checkpoint::checkpoint(global, args),
        Verb::Create(args) => cmd::create::run(global, args),
        Verb::Debug(args) => cmd::debug::run(global, args),
        Verb::Delete(args) => cmd::delete::run(global, args),
        Verb::Do(args) => cmd::do_::run(global, args),
        Verb::Events(args) => cmd::events::run(global, args),
        Verb::Exec(args) => cmd::exec::run(global, args),
        Verb::Features => cmd::features::run(),
        Verb::Install(args) => cmd::install::install(args),
        Verb::Kill(args) => cmd::kill::run(global, args),
        Verb::List(args) => cmd::list::run(global, args),
        Verb::Pause(args) => cmd::pause::pause(global, args),
        Verb::Ps(args) => cmd::ps::run(global, args),
        Verb::Restore(_) => cmd::checkpoint::restore(),
        Verb::Resume(args) => cmd::pause::resume(global, args),
        Verb::Run(args) => cmd::run::run(global, args),
        Verb::Spec(args) => cmd::spec::run(args),
        Verb::Start(args) => cmd::start::run(global, args),
        Verb::State(args) => cmd::state::run(global, args),
        Verb::Uninstall(args) => cmd::install::uninstall(args),
        Verb::Update(args) => cmd::update::run(global, args),
        Verb::Wait(args) => cmd::wait::run(global, args),
    }
}
