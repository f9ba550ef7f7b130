//! The verbs, one a file.
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod do_;
pub(crate) mod exec;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod wait;
