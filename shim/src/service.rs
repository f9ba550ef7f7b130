//! The program that containerd starts: `start` leaves a shim behind, `delete` cleans up after one that is gone.
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, DeleteResponse, Error, ExitSignal, Flags, Shim, StartOpts, spawn, util, warn};
use serde_json::Value;

use crate::events::Events;
use crate::options::Options;
use crate::rootfs;
use crate::runsc::Runsc;
use crate::tasks::Tasks;

/// Annotations that name the pod a container is in.
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"];
/// The file in the bundle that says where the shim listens.
const ADDRESS: &str = "address";
/// The exit code of what was killed.
const KILLED: u32 = 137;

/// The program.
#[derive(Debug)]
pub(crate) struct Service {
    namespace: String,
    id: String,
    bundle: PathBuf,
    exit: Arc<Exit>,
}

/// Tells the shim to end.
#[derive(Default)]
pub(crate) struct Exit(ExitSignal);

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exit")
    }
}

impl Exit {
    /// Ends it.
    pub(crate) fn signal(&self) {
        self.0.signal();
    }
}

/// The name that the containers of one shim share: the pod's, or the container's own.
fn group(bundle: &Path, id: &str) -> String {
    let config = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    let named = |name: &str| config.get("annotations")?.get(name)?.as_str().map(str::to_owned);
    POD.iter().find_map(|name| named(name)).unwrap_or_else(|| id.to_owned())
}

/// Removes the socket that the bundle's shim listened on, if nobody does any more: one that was killed could not.
fn remove_dead_socket(bundle: &Path) {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).unwrap_or_default();
    let Some(path) = address.trim().strip_prefix("unix://") else { return };
    let refused = UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if refused && let Err(error) = std::fs::remove_file(path) {
        warn!("remove {path}: {error}");
    }
}

impl Shim for Service {
    type T = Tasks;

    fn new(_: &str, flags: &Flags, _: &mut Config) -> Self {
        Self {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            bundle: PathBuf::from(&flags.bundle),
            exit: Arc::default(),
        }
    }

    fn start_shim(&mut self, opts: StartOpts) -> Result<String, Error> {
        // containerd starts this program in the bundle.
        let group = group(Path::new("."), &opts.id);
        let (_, address) = spawn(opts, &group, Vec::new())?;
        util::write_address(&address)?;
        Ok(address)
    }

    fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        let bundle = if self.bundle.as_os_str().is_empty() { Path::new(".") } else { &self.bundle };
        let runsc = Runsc::new(Options::load(bundle), &self.namespace, bundle, &self.id);
        if let Err(error) = runsc.delete() {
            warn!("{}: {error:#}", self.id);
        }
        rootfs::unmount_all(&bundle.join("rootfs"));
        remove_dead_socket(bundle);
        Ok(DeleteResponse {
            exit_status: KILLED,
            exited_at: MessageField::some(util::timestamp()?),
            ..DeleteResponse::default()
        })
    }

    fn wait(&mut self) {
        self.exit.0.wait();
    }

    fn create_task_service(&self, publisher: RemotePublisher) -> Self::T {
        // It would hold a connection, see `events`.
        drop(publisher);
        Tasks::new(&self.namespace, Events::new(&self.namespace), Arc::clone(&self.exit))
    }
}
