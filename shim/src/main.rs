//! `containerd-shim-runsc-v1`: containerd starts one for each pod, or container without a pod, and asks it to make and end
//! containers; it has `runsc` do so.
#![forbid(unsafe_code)]

mod container;
mod events;
mod options;
mod reaper;
mod rootfs;
mod runsc;
mod service;
mod stats;
mod streams;
mod tasks;

fn main() {
    // Children are collected by `reaper`, which knows of those that end before somebody asks.
    let config = containerd_shim::Config { no_reaper: true, ..containerd_shim::Config::default() };
    containerd_shim::run::<service::Service>("io.containerd.runsc.v1", Some(config));
}
