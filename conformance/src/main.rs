//! Guest programs that assert how Linux behaves: one static binary, one file a topic, each case in a process of its own.
//!
//! ```text
//! guest list [FILTER]...             one TOPIC::CASE a line
//! guest run [--dir DIR] [FILTER]...  runs each case in a forked child, in a fresh directory under DIR (default /tmp)
//! guest one TOPIC::CASE              runs one case in this process, in the current directory
//! guest helper NAME [ARG]...         what cases execute when they need a program
//! ```
//! A filter is a topic, a `TOPIC::CASE`, or the beginning of one and `*`.

mod case;
mod check;
mod child;
mod fault;
mod helpers;
mod memory;
mod run;
mod signal;
mod sys;
mod topics;
mod tracer;
mod util;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Err(error) = child::remember_self(args.first().map_or("", String::as_str)) {
        eprintln!("guest: where am I: {error}");
        return ExitCode::from(2);
    }
    if args.first().is_some_and(|name| name.ends_with("/args")) {
        return helpers::args(&args);
    }
    let rest = args.get(2..).unwrap_or_default();
    match args.get(1).map(String::as_str) {
        Some("list") => run::list(rest),
        Some("run") => run::run(rest),
        Some("one") => run::one(rest),
        Some("helper") => helpers::main(rest),
        _ => {
            eprintln!(
                "usage: guest list [FILTER].. | run [--dir DIR] [FILTER].. | one TOPIC::CASE | helper NAME [ARG].."
            );
            ExitCode::from(2)
        }
    }
}
