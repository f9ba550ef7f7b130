//! Telling somebody outside what programs do.
use std::fmt;
use std::sync::Arc;

use abi::Errno;

use crate::{ExitStatus, Kernel, ThreadGroup};

/// What a program did, or was kept from.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// It became this program.
    Exec {
        /// The program's file.
        path: &'a [u8],
        /// Its arguments.
        argv: &'a [Vec<u8>],
    },
    /// It ended.
    Exit(ExitStatus),
    /// It opened this file to write to it.
    Open {
        /// The file.
        path: &'a [u8],
        /// As of open(2).
        flags: u32,
    },
    /// It connected a socket, or tried to.
    Connect {
        /// A `struct sockaddr`.
        address: &'a [u8],
        /// Why it could not.
        error: Option<Errno>,
    },
    /// It waits for connections.
    Listen {
        /// A `struct sockaddr`.
        address: &'a [u8],
    },
    /// It may not.
    Denied {
        /// Which call.
        call: &'a str,
        /// The call's arguments, as people read them.
        args: &'a [String],
        /// What it was told.
        error: Errno,
    },
    /// A filter of system calls decided against a call.
    Filtered {
        /// Which call.
        nr: u32,
        /// `SECCOMP_RET_*`.
        action: u32,
    },
}

/// Is told what the programs of a container do, on their own threads: it must not wait.
pub trait Observer: Send + Sync {
    /// Takes notice of what this process did.
    fn tell(&self, group: &Arc<ThreadGroup>, event: &Event<'_>);
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Kernel {
    /// Has somebody told what the programs of this container do; only the first call counts.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // A second one is a mistake of the caller that changes nothing.
        let _second = self.observer.set(observer);
    }

    /// Who is told.
    pub fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.observer.get()
    }
}
