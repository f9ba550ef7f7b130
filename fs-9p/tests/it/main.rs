//! Client, server and file system together, over folders of the host.

#[cfg(test)]
mod common;
#[cfg(test)]
mod gofer_fs;
#[cfg(test)]
mod hostile_client;
#[cfg(test)]
mod hostile_server;
#[cfg(test)]
mod local;
#[cfg(test)]
mod races;
