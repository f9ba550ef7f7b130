//! The topics, one file each; a new one is one line here, in alphabetical order.

macro_rules! topics {
    ($($name:ident)*) => {
        $(mod $name;)*
        /// Every topic.
        pub(crate) const ALL: &[crate::case::Topic] = &[$($name::TOPIC),*];
    };
}

topics! {
    attrs
    capabilities
    clocks
    clones
    creds
    dirs
    epolls
    epolls_more
    eventfds
    exec_state
    execs
    faults
    fds
    file_space
    files
    fpu
    futexes
    futexes_more
    hostile
    inet
    inotify
    job_terminals
    jobs
    limits
    locks
    mmap
    mmap_more
    mqueues
    mremap
    open_flags
    owners
    patched_calls
    patched_signals
    path
    pipes
    polls
    proc_system
    process
    procfs
    pty_modes
    ptrace_calls
    ptrace_events
    ptrace_memory
    ptrace_rights
    ptrace_stops
    ptys
    rename
    rw
    seccomp
    sigaction
    sigaction_more
    signals
    sigqueue
    system
    threads
    timers
    unix_data
    unix_rights
    unix_sockets
    waits
}
