//! `list`: the containers of a state directory.
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Global;
use crate::state::{self, State, Status};
use crate::{container, log};

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What `list` takes.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// How to show them
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Lists.
///
/// # Errors
/// None so far.
pub(crate) fn run(global: &Global, args: &List) -> Result<i32> {
    let states = state::all(&global.root);
    if args.quiet {
        states.iter().for_each(|state| log::say(&state.id));
        return Ok(0);
    }
    if args.format == Format::Json {
        let list: Vec<_> = states.iter().map(entry).collect();
        log::say(&json!(list).to_string());
        return Ok(0);
    }
    log::say(&format!("{:<24} {:<8} {:<8} {:<30} BUNDLE", "ID", "PID", "STATUS", "CREATED"));
    for state in &states {
        let status = state.status();
        let pid = if status == Status::Stopped { 0 } else { state.pid };
        let name = json!(status);
        log::say(&format!(
            "{:<24} {pid:<8} {:<8} {:<30} {}",
            state.id,
            name.as_str().unwrap_or_default(),
            state.created,
            state.bundle.display()
        ));
    }
    Ok(0)
}

fn entry(state: &State) -> serde_json::Value {
    let mut value = container::oci_state(state, state.status());
    if let Some(object) = value.as_object_mut() {
        object.insert("owner".to_owned(), json!(state.owner.to_string()));
    }
    value
}
