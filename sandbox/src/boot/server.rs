//! Answers the command line.
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use abi::Signal;
use kernel::ThreadGroup;
use kernel::signal::{SigInfo, send_from_outside};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt};

use super::container::{Container, Order, Prepared, Started};
use super::hooks::StartHooks;
use super::sandbox::Sandbox;
use super::{BootError, host, report};
use crate::control::{Channel, ChannelError, ProcessInfo, Request, Response, Usage};
use crate::spec::Process;
use crate::sys;

/// How long a caller may take to be told that the first process runs, or does not.
const TELLING: std::time::Duration = std::time::Duration::from_secs(1);
/// The stack of a thread that talks.
const STACK: usize = 512 << 10;

/// What a connection needs.
#[derive(Clone, Debug)]
struct Server {
    sandbox: Arc<Sandbox>,
    container: Arc<Container>,
}

/// Answers from now on; returns when the first process was started.
pub(super) fn serve(
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    launcher: &Channel,
    listener: OwnedFd,
    prepared: Prepared,
) -> Result<Started, BootError> {
    let (sender, orders) = sync_channel(1);
    // Set here only.
    let _first = container.orders.set(sender);
    let server = Server { sandbox: Arc::clone(sandbox), container: Arc::clone(container) };
    let accepting = server.clone();
    spawn("control", move || accepting.accept(&listener))?;
    launcher.send(&Response::Done, &[])?;
    let own = launcher.try_clone().map_err(host("dup"))?;
    spawn("launcher", move || {
        if server.container.is_first {
            server.talk_to_launcher(&own);
            return;
        }
        server.talk(&own);
        server.container.abandon();
    })?;
    start(container, &orders, prepared)
}

/// Waits for the order to start, and does.
fn start(
    container: &Arc<Container>,
    orders: &Receiver<Order>,
    prepared: Prepared,
) -> Result<Started, BootError> {
    let Ok(Order::Start(answer, hooks)) = orders.recv() else {
        return Err(BootError::Container("the container was ended before it was started".to_owned()));
    };
    match container.start(prepared, Some(hooks)) {
        Ok(started) => {
            // Set here only.
            let _first = container.init.set(Arc::clone(&started.group));
            if container.is_abandoned() {
                container.kernel.kill_all();
            }
            drop(answer.send(Ok(())));
            // A program that ends at once must not take the answer with it.
            let _told = orders.recv_timeout(TELLING);
            Ok(started)
        }
        Err(message) => {
            drop(answer.send(Err(message.clone())));
            // The answer is given by the thread that was asked, before the process ends.
            let _told = orders.recv_timeout(TELLING);
            Err(BootError::Container(message))
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), BootError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    thread.spawn(run).map(drop).map_err(host("start a thread"))
}

impl Server {
    fn accept(&self, listener: &OwnedFd) {
        loop {
            let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(number) => sys::own_received(&[number]),
                Err(nix::Error::EINTR | nix::Error::ECONNABORTED) => continue,
                // It was shut down: the container has ended.
                Err(nix::Error::EINVAL) => return,
                Err(error) => {
                    report::line(&format!("control socket: {error}"));
                    return;
                }
            };
            for socket in socket {
                // Who connects is no process of this PID namespace: those have the number 0 here.
                let stranger =
                    getsockopt(&socket, sockopt::PeerCredentials).is_ok_and(|peer| peer.pid() == 0);
                let server = self.clone();
                if stranger {
                    // A connection that cannot be served is closed.
                    let _closed = spawn("control", move || server.talk(&Channel::new(socket)));
                }
            }
        }
    }

    /// A launcher that ends before anybody else knows of the sandbox takes it along.
    fn talk_to_launcher(&self, channel: &Channel) {
        match channel.receive::<Request>() {
            Ok((Request::Settled, _)) => self.talk(channel),
            _ => report::die("its launcher is gone"),
        }
    }

    fn talk(&self, channel: &Channel) {
        let mut attached = false;
        loop {
            let answered = match channel.receive::<Request>() {
                Ok((Request::Create(args), fds)) => return self.sandbox.run_other(channel, &args, fds),
                Ok((Request::Attach, _)) => {
                    attached = true;
                    Ok(())
                }
                Ok((request, fds)) => self.answer(channel, request, fds),
                Err(ChannelError::Closed) => break,
                Err(error) => channel.send(&Response::Error(error.to_string()), &[]).and(Err(error)),
            };
            if answered.is_err() {
                break;
            }
        }
        if attached {
            self.container.kernel.kill_all();
        }
    }

    fn answer(&self, channel: &Channel, request: Request, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        let answer = match request {
            Request::Boot(_) | Request::Create(_) => Err("the container exists".to_owned()),
            // Of a launcher whose end nobody waits for.
            Request::Settled => return Ok(()),
            // The loop that reads requests sees to it.
            Request::Attach => return Ok(()),
            Request::End if self.container.is_first => {
                Err("the first container ends with the sandbox".to_owned())
            }
            Request::End => {
                self.container.abandon();
                self.container.wait_for_end();
                Ok(())
            }
            Request::Start { hooks } => {
                let (asked, answer) = self.start(StartHooks::new(hooks, fds));
                let sent = channel.send(&answer.map_or_else(Response::Error, |()| Response::Done), &[]);
                if asked {
                    // Who starts the container waits for this before it goes on.
                    self.order(Order::End);
                }
                return sent;
            }
            Request::Signal { pid, signal, all } => self.signal(pid, signal, all),
            Request::Exec { process, preserved } => return self.exec(channel, *process, fds, preserved),
            Request::Wait { pid } => match self.group(pid) {
                Ok(group) => {
                    let code = self.container.kernel.wait_exit(&group).shell_code();
                    return channel.send(&Response::Exited { code }, &[]);
                }
                Err(message) => Err(message),
            },
            Request::Processes => return channel.send(&Response::Processes(self.processes()), &[]),
            Request::HostProcesses => {
                return channel.send(&Response::HostProcesses(self.host_processes()), &[]);
            }
            Request::Usage => return channel.send(&Response::Usage(self.usage()), &[]),
            Request::Pause => {
                self.container.kernel.pause();
                Ok(())
            }
            Request::Resume => {
                self.container.kernel.resume();
                Ok(())
            }
            Request::Strace { on } => {
                self.container.traced.store(on, std::sync::atomic::Ordering::Relaxed);
                self.container.kernel.tasks().iter().for_each(|task| task.reconsider());
                Ok(())
            }
            Request::Stacks => return channel.send(&Response::Text(self.stacks()), &[]),
            Request::Limit { tasks, memory, cpu } => {
                self.limit(tasks, memory);
                if let Some(limit) = cpu {
                    self.container.kernel.quota().set_cpu(Some(limit).filter(|(quota, _)| *quota > 0));
                }
                Ok(())
            }
            Request::Resize { pid, rows, columns } => {
                if let Some(relay) = self.container.terminal(pid) {
                    relay.resize(rows, columns);
                }
                // Sent while the answer to another request is waited for: none of its own.
                return Ok(());
            }
        };
        channel.send(&answer.map_or_else(Response::Error, |()| Response::Done), &[])
    }

    /// Asks the main thread to start the first process: whether it was asked, and how that went.
    fn start(&self, hooks: StartHooks) -> (bool, Result<(), String>) {
        if self.container.init.get().is_some() {
            return (false, Err("the container is running already".to_owned()));
        }
        let (answer, told) = sync_channel(1);
        self.order(Order::Start(answer, hooks));
        (true, told.recv().unwrap_or_else(|_gone| Err("the container has ended".to_owned())))
    }

    /// Tells whoever waits to start the container, if that is still to be done.
    fn order(&self, order: Order) {
        if let Some(orders) = self.container.orders.get() {
            // An order that nobody hears is dropped, and who waits for its answer is told by that.
            let _unheard = orders.send(order);
        }
    }

    /// A process by its id; the first if none is given.
    fn group(&self, pid: Option<i32>) -> Result<Arc<ThreadGroup>, String> {
        let found = match pid {
            None => self.container.init.get().cloned(),
            Some(pid) => self.container.kernel.thread_group(pid),
        };
        found.ok_or_else(|| match pid {
            None => "the container has not been started".to_owned(),
            Some(pid) => format!("there is no process {pid}"),
        })
    }

    fn signal(&self, pid: Option<i32>, signal: i32, all: bool) -> Result<(), String> {
        let signal = Signal::new(signal).ok_or_else(|| format!("there is no signal {signal}"))?;
        let groups = if all { self.container.kernel.thread_groups() } else { vec![self.group(pid)?] };
        for group in groups {
            send_from_outside(&group, SigInfo::kill(signal, 0, 0)).map_err(|errno| errno.to_string())?;
        }
        Ok(())
    }

    /// Every thread with what it is at, and what was asked for that is not supported.
    fn stacks(&self) -> String {
        let kernel = &self.container.kernel;
        let mut tasks = kernel.tasks();
        tasks.sort_by_key(|task| (task.tgid(), task.tid()));
        let lines = tasks.iter().map(|task| {
            let name = task.name();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let (user, system) = task.cpu_ns();
            let state = if task.is_running() { "runs" } else { "waits" };
            format!(
                "process {} thread {} {}: {state}, {} ms user, {} ms system\n",
                task.tgid(),
                task.tid(),
                String::from_utf8_lossy(name),
                user / 1_000_000,
                system / 1_000_000
            )
        });
        let unsupported = kernel.unsupported_counts().into_iter();
        let unsupported = unsupported.map(|(what, count)| format!("not supported: {what}: {count} times\n"));
        lines.chain(unsupported).collect()
    }

    fn limit(&self, tasks: Option<u64>, memory: Option<u64>) {
        let quota = self.container.kernel.quota();
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        if let Some(tasks) = tasks {
            quota.set_tasks(or_none(tasks));
        }
        if let Some(memory) = memory {
            quota.set_memory(or_none(memory));
            // That of the first is the host's affair: its control group has all of the sandbox.
            if !self.container.is_first {
                self.container.kernel.memory_file().set_own_limit(or_none(memory));
            }
        }
    }

    fn usage(&self) -> Usage {
        let kernel = &self.container.kernel;
        let cpu = kernel.cpu_times();
        let limit = |limit: u64| (limit != u64::MAX).then_some(limit);
        Usage {
            user_ns: cpu.user_ns,
            system_ns: cpu.system_ns,
            memory: kernel.memory_file().own_present_bytes(),
            memory_limit: limit(kernel.memory_file().own_limit()),
            tasks: kernel.task_count() as u64,
            task_limit: limit(kernel.quota().tasks()),
        }
    }

    fn processes(&self) -> Vec<ProcessInfo> {
        let info = |group: Arc<ThreadGroup>| ProcessInfo {
            pid: group.tgid(),
            ppid: group.parent_id(),
            uid: group.credentials().uid,
            name: name_of(&group),
        };
        self.container.kernel.thread_groups().into_iter().map(info).collect()
    }

    /// The stubs of its processes, which the host shows by the processes' own command lines from now on.
    fn host_processes(&self) -> Vec<i32> {
        let shown = |group: &Arc<ThreadGroup>| {
            let mm = group.leader()?.mm()?;
            let mut words = fs_proc::cmdline(&mm);
            if words.is_empty() {
                words = format!("[{}]", name_of(group)).into_bytes();
            }
            let end = words.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            words.truncate(end);
            // Words are told apart by zeros, which would be the end of them here; and a terminal is not to obey them.
            words.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
            mm.address_space().show_as(&words)
        };
        let mut all: Vec<i32> = self.container.kernel.thread_groups().iter().filter_map(shown).collect();
        // A child of vfork(2) is in its parent's.
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Starts a process; its end is told on the same connection, by a thread of its own.
    fn exec(
        &self,
        channel: &Channel,
        process: Process,
        fds: Vec<OwnedFd>,
        preserved: usize,
    ) -> Result<(), ChannelError> {
        let started = if self.container.init.get().is_none() {
            Err("the container has not been started".to_owned())
        } else {
            self.container
                .prepare(process, fds, preserved)
                .and_then(|prepared| self.container.start(prepared, None))
        };
        let started = match started {
            Ok(started) => started,
            Err(message) => return channel.send(&Response::Error(message), &[]),
        };
        channel.send(&Response::Started { pid: started.group.tgid() }, &[])?;
        let (teller, container) = (channel.try_clone()?, Arc::clone(&self.container));
        let wait = move || {
            let code = container.kernel.wait_exit(&started.group).shell_code();
            if let Some(relay) = &started.relay {
                relay.drain(std::time::Instant::now() + super::DRAIN);
            }
            container.forget_terminal(started.group.tgid());
            // A caller that is gone need not be told.
            let _unheard = teller.send(&Response::Exited { code }, &[]);
        };
        if spawn("exec", wait).is_err() {
            return channel.send(&Response::Error("the host has no room for a thread".to_owned()), &[]);
        }
        Ok(())
    }
}

fn name_of(group: &Arc<ThreadGroup>) -> String {
    let name = group.leader().map(|leader| leader.name()).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
