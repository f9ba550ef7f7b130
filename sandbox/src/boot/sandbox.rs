//! The containers of a sandbox: the first, whose end is the sandbox's, and others that come and go beside it.
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fs_9p::client::Client;
use kernel::Kernel;
use nix::sys::socket::{Shutdown, shutdown};
use vfs::tty::Devpts;

use super::container::{self, Container};
use super::notifier::Notifier;
use super::watch::OtherGofer;
use super::{BootArgs, BootError, BootFds, events, finish, host, host_nix, identity, memory, root, server};
use crate::control::{Channel, Response};

/// What the containers of a sandbox share.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// The first container's.
    kernel: Arc<Kernel>,
    notifier: Arc<Notifier>,
    /// Whether system calls are reported now.
    traced: Arc<AtomicBool>,
}

impl Sandbox {
    pub(super) const fn new(kernel: Arc<Kernel>, notifier: Arc<Notifier>, traced: Arc<AtomicBool>) -> Self {
        Self { kernel, notifier, traced }
    }

    /// Builds a container of this kernel.
    pub(super) fn build(
        &self,
        kernel: Arc<Kernel>,
        gofer: &Arc<Client>,
        args: &BootArgs,
    ) -> Result<Arc<Container>, BootError> {
        if let Some(ids) = &args.ids {
            kernel.set_id_maps(identity::maps(ids));
        }
        let devpts = Devpts::new(&kernel);
        kernel.attach(Arc::clone(&devpts));
        let tree = root::Builder::new(&kernel, gofer, args)
            .and_then(root::Builder::finish)
            .map_err(|error| BootError::Container(error.to_string()))?;
        let is_first = Arc::ptr_eq(&kernel, &self.kernel);
        let notifier = Arc::clone(&self.notifier);
        let profile =
            args.seccomp.as_ref().map(container::profile).transpose().map_err(BootError::Container)?;
        let container = Container::new(is_first, kernel, tree, devpts, notifier);
        Ok(Arc::new(container.with(profile, Arc::clone(&self.traced))))
    }

    /// Builds another container, and stays with it to its end, which is told on the channel.
    pub(super) fn run_other(self: &Arc<Self>, channel: &Channel, args: &BootArgs, fds: Vec<OwnedFd>) {
        let answer = match self.other(channel, args, fds) {
            Ok(code) => Response::Exited { code },
            Err(error) => Response::Error(error.to_string()),
        };
        // A launcher that is gone needs no answer.
        let _unheard = channel.send(&answer, &[]);
    }

    fn other(
        self: &Arc<Self>,
        channel: &Channel,
        args: &BootArgs,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, BootError> {
        let mut fds = BootFds::new(fds, args)
            .ok_or_else(|| BootError::Container("the launcher does not say what to create".to_owned()))?;
        let gofer = crate::gofer::connect(fds.gofer.try_clone().map_err(host("dup"))?)
            .map_err(|errno| BootError::Container(format!("the gofer does not answer: {errno}")))?;
        let kernel = self.kernel.new_pid_namespace();
        if let Some(limit) = args.task_limit {
            kernel.quota().set_tasks(limit);
        }
        if let Some(limit) = args.memory_limit {
            kernel.quota().set_memory(limit);
            kernel.memory_file().set_own_limit(limit);
        }
        kernel.quota().set_cpu(args.cpu_limit);
        events::observe(&kernel, fds.events.take(), &args.id);
        memory::record(&kernel, fds.oom_record);
        let container = self.build(kernel, &gofer, args)?;
        drop(gofer);
        let gofer =
            OtherGofer::watch(&self.notifier, fds.gofer, &container).map_err(host_nix("watch the gofer"))?;
        let prepared = container
            .prepare(args.process.clone(), fds.streams, args.preserved)
            .map_err(BootError::Container)?;
        let listener = fds.listener.try_clone().map_err(host("dup"))?;
        let result = server::serve(self, &container, channel, fds.listener, prepared)
            .map(|started| finish(&container, &started, &fds.exit_record));
        // Nobody is served any more.
        let _closed = shutdown(listener.as_raw_fd(), Shutdown::Both);
        drop(gofer);
        container.has_ended();
        result
    }
}
