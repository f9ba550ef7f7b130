//! A container and its processes, as the shim knows them.
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use containerd_shim::api::Status;
use containerd_shim::protos::events::task::{TaskExecStarted, TaskExit, TaskOOM, TaskStart};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::{util, warn};
use sync::{LockClass, Mutex, PollEvents, WaitQueue, Waiter, Wake};

use crate::events::Events;
use crate::reaper::reaper;
use crate::runsc::Runsc;
use crate::streams::{Console, Held, Places};

/// The exit code of what could not be started.
const NEVER_RAN: u32 = 255;

/// How a process ended, and when.
pub(crate) type Exit = (u32, Timestamp);

#[derive(Debug)]
struct State {
    pid: u32,
    /// Its id in the container; none for the first process, which needs none.
    inside: Option<u32>,
    status: Status,
    /// Its end is not told before its start.
    starting: bool,
    exit: Option<Exit>,
    held: Option<Arc<Held>>,
}

/// A process of a container: its first, or one of exec.
#[derive(Debug)]
pub(crate) struct Process {
    container: String,
    /// Empty for the first.
    pub(crate) exec_id: String,
    /// Its description, for exec.
    spec: Vec<u8>,
    pub(crate) places: Places,
    state: Mutex<State>,
    ended: WaitQueue,
    events: Events,
}

impl Process {
    /// One that does not exist yet.
    pub(crate) fn new(
        container: &str,
        exec_id: &str,
        spec: Vec<u8>,
        places: Places,
        events: &Events,
    ) -> Arc<Self> {
        let state =
            State { pid: 0, inside: None, status: Status::CREATED, starting: false, exit: None, held: None };
        Arc::new(Self {
            container: container.to_owned(),
            exec_id: exec_id.to_owned(),
            spec,
            places,
            state: Mutex::new(LockClass::Leaf, state),
            ended: WaitQueue::new(),
            events: events.clone(),
        })
    }

    /// The process of the host that ends as it ends; 0 before there is one.
    pub(crate) fn pid(&self) -> u32 {
        self.state.lock().pid
    }

    /// What it does.
    pub(crate) fn status(&self) -> Status {
        self.state.lock().status
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.state.lock().exit.clone()
    }

    /// What is held of its streams.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        self.state.lock().held.clone()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&self) -> Exit {
        let waiter = Waiter::new();
        let key = self.ended.register(PollEvents::ALL, Arc::clone(&waiter) as Arc<dyn Wake>);
        let exit = loop {
            if let Some(exit) = self.exit() {
                break exit;
            }
            waiter.wait(None);
        };
        self.ended.unregister(key);
        exit
    }

    /// Runs something that makes it, with its streams: `make` is given the streams and where a terminal is to be sent.
    fn with_streams(
        &self,
        make: impl FnOnce(crate::streams::Standard, Option<PathBuf>) -> Result<(u32, Option<u32>)>,
    ) -> Result<(u32, Option<u32>)> {
        let (held, pids) = if self.places.terminal {
            let console = Console::new()?;
            let pids = make(crate::streams::Standard::default(), Some(console.path()))?;
            (Held::carry(&self.places, console.receive()?)?, pids)
        } else {
            let (held, standard) = Held::open(&self.places)?;
            match make(standard, None) {
                Ok(pids) => (held, pids),
                Err(error) => {
                    held.close();
                    return Err(error);
                }
            }
        };
        self.state.lock().held = Some(Arc::new(held));
        Ok(pids)
    }

    /// Says that it is about to start; its end is told by [`Self::started`] if it comes before.
    fn starting(&self) -> Result<()> {
        let mut state = self.state.lock();
        ensure!(state.status == Status::CREATED && !state.starting, "the process was started already");
        ensure!(state.exit.is_none(), "the process has ended already");
        state.starting = true;
        Ok(())
    }

    /// Says that it has started, or not.
    fn started(&self, tell: Option<impl FnOnce(&Events, u32)>) {
        let (pid, ended) = {
            let mut state = self.state.lock();
            state.starting = false;
            if tell.is_some() && state.exit.is_none() {
                state.status = Status::RUNNING;
            }
            (state.pid, state.exit.clone())
        };
        if let Some(tell) = tell {
            tell(&self.events, pid);
        }
        if let Some(exit) = ended {
            self.tell_exit(pid, exit);
        }
    }

    /// Says that it never was: who waits for its end need not wait any more.
    pub(crate) fn give_up(&self) {
        {
            let mut state = self.state.lock();
            if state.exit.is_none() {
                state.exit = Some((NEVER_RAN, util::timestamp().unwrap_or_default()));
                state.status = Status::STOPPED;
            }
        }
        self.ended.notify(PollEvents::ALL);
    }

    /// Waits for the end of the process of the host that ends as it ends.
    fn follow(self: &Arc<Self>, pid: u32, inside: Option<u32>) -> Result<()> {
        {
            let mut state = self.state.lock();
            (state.pid, state.inside) = (pid, inside);
        }
        let (this, end) = (Arc::clone(self), reaper().adopt(pid));
        let wait = move || this.has_ended(end.recv().unwrap_or(255));
        std::thread::Builder::new().name("process".to_owned()).spawn(wait).context("start a thread")?;
        Ok(())
    }

    fn has_ended(&self, code: u32) {
        let exit = (code, util::timestamp().unwrap_or_default());
        let (pid, starting, held) = {
            let mut state = self.state.lock();
            state.exit = Some(exit.clone());
            state.status = Status::STOPPED;
            (state.pid, state.starting, state.held.take())
        };
        if let Some(held) = held {
            held.close();
        }
        if !starting {
            self.tell_exit(pid, exit);
        }
        self.ended.notify(PollEvents::ALL);
    }

    fn tell_exit(&self, pid: u32, (code, at): Exit) {
        let id = if self.exec_id.is_empty() { &self.container } else { &self.exec_id };
        self.events.send(TaskExit {
            container_id: self.container.clone(),
            id: id.clone(),
            pid,
            exit_status: code,
            exited_at: MessageField::some(at),
            ..TaskExit::default()
        });
    }

    fn pause(&self, paused: bool) {
        let mut state = self.state.lock();
        match (state.status, paused) {
            (Status::RUNNING, true) => state.status = Status::PAUSED,
            (Status::PAUSED, false) => state.status = Status::RUNNING,
            _ => {}
        }
    }
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) runsc: Runsc,
    pub(crate) init: Arc<Process>,
    pub(crate) execs: Mutex<HashMap<String, Arc<Process>>>,
    events: Events,
}

impl Container {
    /// Has it created.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) fn create(id: &str, runsc: Runsc, places: Places, events: &Events) -> Result<Arc<Self>> {
        let init = Process::new(id, "", Vec::new(), places, events);
        let (pid, _) =
            init.with_streams(|streams, console| Ok((runsc.create(streams, console.as_deref())?, None)))?;
        init.follow(pid, None)?;
        let execs = Mutex::new(LockClass::Leaf, HashMap::new());
        Ok(Arc::new(Self { id: id.to_owned(), runsc, init, execs, events: events.clone() }))
    }

    /// Starts its first process.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn start(&self) -> Result<u32> {
        self.init.starting()?;
        // Before the first program can have run out of it.
        let (events, id) = (self.events.clone(), self.id.clone());
        let oom = move || events.send(TaskOOM { container_id: id.clone(), ..TaskOOM::default() });
        if let Err(error) = self.runsc.watch_memory(oom) {
            warn!("{}: nobody will hear of a lack of memory: {error:#}", self.id);
        }
        let started = self.runsc.start();
        let id = self.id.clone();
        let tell = started.is_ok().then_some(|events: &Events, pid: u32| {
            events.send(TaskStart { container_id: id, pid, ..TaskStart::default() });
        });
        self.init.started(tell);
        started?;
        Ok(self.init.pid())
    }

    /// Starts a process that was added.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn start_exec(&self, process: &Arc<Process>) -> Result<u32> {
        process.starting()?;
        let made = process.with_streams(|streams, console| {
            let made = self.runsc.exec(&process.exec_id, &process.spec, streams, console.as_deref());
            made.map(|(pid, inside)| (pid, Some(inside)))
        });
        let made = made.and_then(|(pid, inside)| process.follow(pid, inside));
        let (container_id, exec_id) = (self.id.clone(), process.exec_id.clone());
        let tell = made.is_ok().then_some(|events: &Events, pid: u32| {
            events.send(TaskExecStarted { container_id, exec_id, pid, ..TaskExecStarted::default() });
        });
        process.started(tell);
        if made.is_err() {
            process.give_up();
        }
        made?;
        Ok(process.pid())
    }

    /// Sends a signal to a process of it.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn kill(&self, process: &Process, signal: u32, all: bool) -> Result<()> {
        let inside = process.state.lock().inside;
        ensure!(process.exec_id.is_empty() || inside.is_some(), "the process was not started");
        self.runsc.kill(signal, inside, all)
    }

    /// Pauses or resumes it.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        self.runsc.freeze(frozen)?;
        self.init.pause(frozen);
        Ok(())
    }
}
