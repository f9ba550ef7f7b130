//! The task service: what containerd asks of containers.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use containerd_shim::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim::protos::api::ProcessInfo;
use containerd_shim::protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskIO, TaskPaused, TaskResumed,
};
use containerd_shim::protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim::protos::ttrpc::{Code, Error, get_status};
use containerd_shim::{Task, TtrpcContext, TtrpcResult, warn};
use sync::{LockClass, Mutex};

use crate::container::{Container, Process};
use crate::events::Events;
use crate::options::Options;
use crate::rootfs;
use crate::runsc::Runsc;
use crate::service::Exit;
use crate::stats;
use crate::streams::Places;

/// The containers of a shim.
#[derive(Debug)]
pub(crate) struct Tasks {
    namespace: String,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    events: Events,
    exit: Arc<Exit>,
}

fn refuse(code: Code, message: impl Into<String>) -> Error {
    Error::RpcStatus(get_status(code, message.into()))
}

/// An error as containerd sees it.
#[expect(clippy::needless_pass_by_value, reason = "is given to map_err")]
fn failed(error: anyhow::Error) -> Error {
    let text = format!("{error:#}");
    let gone = text.contains("not running") || text.contains("does not exist") || text.contains("no process");
    refuse(if gone { Code::NOT_FOUND } else { Code::UNKNOWN }, text)
}

impl Tasks {
    /// None yet.
    pub(crate) fn new(namespace: &str, events: Events, exit: Arc<Exit>) -> Self {
        let containers = Mutex::new(LockClass::Leaf, HashMap::new());
        Self { namespace: namespace.to_owned(), containers, events, exit }
    }

    fn container(&self, id: &str) -> TtrpcResult<Arc<Container>> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| refuse(Code::NOT_FOUND, format!("there is no container {id}")))
    }

    /// A container, and a process of it: the first if no other is named.
    fn process(&self, id: &str, exec_id: &str) -> TtrpcResult<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        let process = if exec_id.is_empty() {
            Some(Arc::clone(&container.init))
        } else {
            container.execs.lock().get(exec_id).cloned()
        };
        let process =
            process.ok_or_else(|| refuse(Code::NOT_FOUND, format!("there is no process {exec_id}")))?;
        Ok((container, process))
    }

    fn create_container(&self, req: &CreateTaskRequest) -> anyhow::Result<Arc<Container>> {
        anyhow::ensure!(req.checkpoint.is_empty(), "checkpoints are not supported yet");
        let bundle = Path::new(&req.bundle);
        let options = Options::new(req.options.as_ref())?;
        options.save(bundle)?;
        let root = bundle.join("rootfs");
        let runsc = Runsc::new(options, &self.namespace, bundle, &req.id);
        let places = Places {
            stdin: req.stdin.clone(),
            stdout: req.stdout.clone(),
            stderr: req.stderr.clone(),
            terminal: req.terminal,
        };
        let created = rootfs::mount_all(&req.rootfs, &root)
            .and_then(|()| Container::create(&req.id, runsc, places, &self.events));
        if created.is_err() && !req.rootfs.is_empty() {
            rootfs::unmount_all(&root);
        }
        created
    }

    fn delete_container(&self, container: &Container) -> TtrpcResult<()> {
        container.runsc.delete().map_err(failed)?;
        rootfs::unmount_all(&container.runsc.bundle().join("rootfs"));
        let gone = self.containers.lock().remove(&container.id);
        drop(gone);
        Ok(())
    }
}

impl Task for Tasks {
    fn state(&self, _: &TtrpcContext, req: StateRequest) -> TtrpcResult<StateResponse> {
        let (container, process) = self.process(&req.id, &req.exec_id)?;
        let mut state = StateResponse {
            id: req.id,
            exec_id: req.exec_id,
            bundle: container.runsc.bundle().display().to_string(),
            pid: process.pid(),
            status: EnumOrUnknown::new(process.status()),
            stdin: process.places.stdin.clone(),
            stdout: process.places.stdout.clone(),
            stderr: process.places.stderr.clone(),
            terminal: process.places.terminal,
            ..StateResponse::default()
        };
        if let Some((code, at)) = process.exit() {
            state.exit_status = code;
            state.exited_at = MessageField::some(at);
        }
        Ok(state)
    }

    fn create(&self, _: &TtrpcContext, req: CreateTaskRequest) -> TtrpcResult<CreateTaskResponse> {
        if self.containers.lock().contains_key(&req.id) {
            return Err(refuse(Code::ALREADY_EXISTS, format!("container {} exists", req.id)));
        }
        let container = self.create_container(&req).map_err(failed)?;
        let pid = container.init.pid();
        let other = self.containers.lock().insert(req.id.clone(), container);
        drop(other);
        self.events.send(TaskCreate {
            container_id: req.id,
            bundle: req.bundle,
            rootfs: req.rootfs,
            io: MessageField::some(TaskIO {
                stdin: req.stdin,
                stdout: req.stdout,
                stderr: req.stderr,
                terminal: req.terminal,
                ..TaskIO::default()
            }),
            pid,
            ..TaskCreate::default()
        });
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    fn start(&self, _: &TtrpcContext, req: StartRequest) -> TtrpcResult<StartResponse> {
        let (container, process) = self.process(&req.id, &req.exec_id)?;
        let started = if req.exec_id.is_empty() { container.start() } else { container.start_exec(&process) };
        Ok(StartResponse { pid: started.map_err(failed)?, ..StartResponse::default() })
    }

    fn delete(&self, _: &TtrpcContext, req: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let (container, process) = self.process(&req.id, &req.exec_id)?;
        let exit = process.exit();
        if exit.is_none() && process.pid() != 0 {
            return Err(refuse(Code::FAILED_PRECONDITION, "the process has not ended"));
        }
        if req.exec_id.is_empty() {
            self.delete_container(&container)?;
        } else {
            let gone = container.execs.lock().remove(&req.exec_id);
            drop(gone);
            process.give_up();
        }
        let (exit_status, at) = exit.unzip();
        let (pid, exit_status) = (process.pid(), exit_status.unwrap_or(0));
        let exited_at = at.map_or_else(MessageField::none, MessageField::some);
        self.events.send(TaskDelete {
            container_id: req.id,
            id: req.exec_id,
            pid,
            exit_status,
            exited_at: exited_at.clone(),
            ..TaskDelete::default()
        });
        Ok(DeleteResponse { pid, exit_status, exited_at, ..DeleteResponse::default() })
    }

    fn pids(&self, _: &TtrpcContext, req: PidsRequest) -> TtrpcResult<PidsResponse> {
        let pids = self.container(&req.id)?.runsc.pids().map_err(failed)?;
        let info = |pid| ProcessInfo { pid, ..ProcessInfo::default() };
        Ok(PidsResponse { processes: pids.into_iter().map(info).collect(), ..PidsResponse::default() })
    }

    fn pause(&self, _: &TtrpcContext, req: PauseRequest) -> TtrpcResult<Empty> {
        self.container(&req.id)?.freeze(true).map_err(failed)?;
        self.events.send(TaskPaused { container_id: req.id, ..TaskPaused::default() });
        Ok(Empty::default())
    }

    fn resume(&self, _: &TtrpcContext, req: ResumeRequest) -> TtrpcResult<Empty> {
        self.container(&req.id)?.freeze(false).map_err(failed)?;
        self.events.send(TaskResumed { container_id: req.id, ..TaskResumed::default() });
        Ok(Empty::default())
    }

    fn kill(&self, _: &TtrpcContext, req: KillRequest) -> TtrpcResult<Empty> {
        let (container, process) = self.process(&req.id, &req.exec_id)?;
        if process.exit().is_some() {
            return Err(refuse(Code::NOT_FOUND, "the process has ended already"));
        }
        container.kill(&process, req.signal, req.all).map_err(failed)?;
        Ok(Empty::default())
    }

    fn exec(&self, _: &TtrpcContext, req: ExecProcessRequest) -> TtrpcResult<Empty> {
        let container = self.container(&req.id)?;
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if req.exec_id.is_empty() || !req.exec_id.chars().all(fine) {
            return Err(refuse(Code::INVALID_ARGUMENT, format!("invalid process id {:?}", req.exec_id)));
        }
        let places =
            Places { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal };
        let spec = req.spec.into_option().unwrap_or_default().value;
        let process = Process::new(&req.id, &req.exec_id, spec, places, &self.events);
        let mut execs = container.execs.lock();
        if execs.contains_key(&req.exec_id) {
            return Err(refuse(Code::ALREADY_EXISTS, format!("process {} exists", req.exec_id)));
        }
        execs.insert(req.exec_id.clone(), process);
        drop(execs);
        self.events.send(TaskExecAdded {
            container_id: req.id,
            exec_id: req.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(Empty::default())
    }

    fn resize_pty(&self, _: &TtrpcContext, req: ResizePtyRequest) -> TtrpcResult<Empty> {
        let (_, process) = self.process(&req.id, &req.exec_id)?;
        let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        if let Some(held) = process.held() {
            held.resize(side(req.height), side(req.width)).map_err(failed)?;
        }
        Ok(Empty::default())
    }

    fn close_io(&self, _: &TtrpcContext, req: CloseIORequest) -> TtrpcResult<Empty> {
        let (_, process) = self.process(&req.id, &req.exec_id)?;
        if let Some(held) = process.held().filter(|_| req.stdin) {
            held.close_stdin();
        }
        Ok(Empty::default())
    }

    fn update(&self, _: &TtrpcContext, req: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let resources = req.resources.into_option().unwrap_or_default().value;
        self.container(&req.id)?.runsc.update(&resources).map_err(failed)?;
        Ok(Empty::default())
    }

    fn wait(&self, _: &TtrpcContext, req: WaitRequest) -> TtrpcResult<WaitResponse> {
        let (_, process) = self.process(&req.id, &req.exec_id)?;
        let (exit_status, at) = process.wait();
        Ok(WaitResponse { exit_status, exited_at: MessageField::some(at), ..WaitResponse::default() })
    }

    fn stats(&self, _: &TtrpcContext, req: StatsRequest) -> TtrpcResult<StatsResponse> {
        let event = self.container(&req.id)?.runsc.stats().map_err(failed)?;
        let stats = stats::metrics(&event).map_err(failed)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    fn connect(&self, _: &TtrpcContext, req: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let task_pid = self.container(&req.id).map_or(0, |container| container.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..ConnectResponse::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        let left = self.containers.lock().len();
        if left == 0 {
            self.exit.signal();
        } else {
            warn!("not ended: there are {left} containers");
        }
        Ok(Empty::default())
    }
}
