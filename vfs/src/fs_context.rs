//! Root, working directory and umask of a process, Linux `fs_struct`, with its mount namespace.
use std::sync::Arc;

use abi::Errno;
use kernel::{CloneFlags, Slot, SlotId, Task, TaskResource};
use sync::{LockClass, RwLock};

use crate::{MountNamespace, Path};

/// Where tasks keep their [`FsContext`].
pub const FS: Slot<FsContext> = Slot::new(SlotId::Fs);

#[derive(Clone, Debug)]
struct State {
    namespace: Arc<MountNamespace>,
    root: Path,
    cwd: Path,
    umask: u32,
}

/// From where a process resolves paths.
///
/// The mount namespace is here too: Linux ties the two together as well, a namespace of one's own coming with a root and
/// a working directory of one's own.
#[derive(Debug)]
pub struct FsContext {
    state: RwLock<State>,
}

impl FsContext {
    /// A context whose root and working directory are `root`.
    #[must_use]
    pub fn new(namespace: Arc<MountNamespace>, root: Path, umask: u32) -> Arc<Self> {
        let cwd = root.clone();
        Self::from_state(State { namespace, root, cwd, umask })
    }

    fn from_state(state: State) -> Arc<Self> {
        Arc::new(Self { state: RwLock::new(LockClass::FsContext, state) })
    }

    /// The context of a task.
    ///
    /// # Errors
    /// `ESRCH` for a task that has exited.
    pub fn of(task: &Task) -> Result<Arc<Self>, Errno> {
        task.get(&FS).ok_or(Errno::ESRCH)
    }

    /// The mount namespace.
    #[must_use]
    pub fn namespace(&self) -> Arc<MountNamespace> {
        Arc::clone(&self.state.read().namespace)
    }
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Path {
        self.state.read().root.clone()
    }
    /// The working directory.
    #[must_use]
    pub fn cwd(&self) -> Path {
        self.state.read().cwd.clone()
    }
    /// Root and working directory.
    #[must_use]
    pub fn root_and_cwd(&self) -> (Path, Path) {
        let state = self.state.read();
        (state.root.clone(), state.cwd.clone())
    }
    /// The mode bits that new files do not get.
    #[must_use]
    pub fn umask(&self) -> u32 {
        self.state.read().umask
    }
    /// Replaces the umask; gives the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        std::mem::replace(&mut self.state.write().umask, umask & 0o777)
    }
    /// Replaces the working directory.
    pub fn set_cwd(&self, cwd: Path) {
        let old = std::mem::replace(&mut self.state.write().cwd, cwd);
        drop(old);
    }
    /// Replaces the root directory.
    pub fn set_root(&self, root: Path) {
        let old = std::mem::replace(&mut self.state.write().root, root);
        drop(old);
    }
    /// Moves to another namespace, setns(2).
    pub fn set_namespace(&self, namespace: Arc<MountNamespace>) {
        let root = namespace.root_path();
        let mut state = self.state.write();
        let new = State { namespace, cwd: root.clone(), root, umask: state.umask };
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        drop(old);
    }
    /// Replaces root and working directory where they are `old`, pivot_root(2).
    pub(crate) fn replace_root(&self, old: &Path, new: &Path) {
        let mut dropped = Vec::new();
        let mut state = self.state.write();
        if state.root == *old {
            dropped.push(std::mem::replace(&mut state.root, new.clone()));
        }
        if state.cwd == *old {
            dropped.push(std::mem::replace(&mut state.cwd, new.clone()));
        }
        drop(state);
        drop(dropped);
    }
}

impl TaskResource for FsContext {
    fn on_clone(self: Arc<Self>, flags: CloneFlags) -> Result<Arc<dyn TaskResource>, Errno> {
        if flags.contains(CloneFlags::NEWNS) {
            let state = self.state.read().clone();
            let (namespace, map) = state.namespace.copy()?;
            let (root, cwd) = (map.translate(&state.root), map.translate(&state.cwd));
            return Ok(Self::from_state(State { namespace, root, cwd, umask: state.umask }));
        }
        if flags.contains(CloneFlags::FS) {
            return Ok(self);
        }
        let state = self.state.read().clone();
        Ok(Self::from_state(state))
    }

    fn on_exec(self: Arc<Self>) -> Arc<dyn TaskResource> {
        self
    }
}
