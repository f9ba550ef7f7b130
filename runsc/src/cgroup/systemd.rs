//! Groups that systemd makes: a transient scope below a slice, asked for on the system's bus (org.freedesktop.systemd1(5)).
use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustbus::connection::Timeout;
use rustbus::message_builder::{MarshalledMessage, MessageBuilder, MessageType};
use rustbus::{RpcConn, dbus_variant_sig};
use sandbox::spec::Resources;
use serde::{Deserialize, Serialize};

/// How long systemd may take for an answer, or for a job.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where systemd shows that it runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

type Pids = Vec<u32>;
type Bits = Vec<u8>;
dbus_variant_sig!(Value, Text => String; Number => u64; Flag => bool; Members => Pids; Set => Bits);
type Properties = Vec<(String, Value)>;

/// A scope, as `linux.cgroupsPath` names it for this driver: `slice:prefix:name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    slice: String,
    /// The unit.
    name: String,
}

impl Scope {
    /// # Errors
    /// A path of another form.
    pub(super) fn parse(path: &str) -> Result<Self> {
        let form =
            || anyhow!("linux.cgroupsPath: {path:?} is not slice:prefix:name, which --systemd-cgroup takes");
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else { return Err(form()) };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:\\@".contains(&b));
        ensure!(plain(slice) && plain(prefix) && plain(name) && !name.is_empty(), form());
        // What names a slice itself is one that the engine made; a container gets a scope of its own in either case.
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        ensure!(slice_dirs(slice).is_some(), "linux.cgroupsPath: {slice:?} is no slice");
        Ok(Self { slice: slice.to_owned(), name })
    }

    /// The folder below the root of each hierarchy.
    pub(super) fn path(&self) -> String {
        let dirs = slice_dirs(&self.slice).unwrap_or_default();
        PathBuf::from("/").join(dirs).join(&self.name).display().to_string()
    }
}

/// The folders of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_dirs(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    if name.split('-').any(str::is_empty) || name.contains('/') {
        return None;
    }
    let ends = name.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.filter_map(|end| name.get(..end)).map(|part| format!("{part}.slice")).collect())
}

/// A process that keeps a new scope from ending until those of the sandbox are in it: it waits for the end of its input,
/// which comes with the end of this process at the latest.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    fn start() -> Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.arg("keep-scope").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("start a process for the scope")
    }
}

/// The program of such a process.
pub(crate) fn keep_scope() -> i32 {
    i32::from(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).is_err())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            crate::log::warn(&format!("the process that kept the scope: {error}"));
        }
    }
}

/// systemd, as the system's bus offers it.
pub(super) struct Manager(RpcConn);

impl Manager {
    /// # Errors
    /// When there is no systemd, or no bus.
    pub(super) fn connect() -> Result<Self> {
        ensure!(
            std::path::Path::new(BOOTED).is_dir(),
            "--systemd-cgroup: systemd does not run here ({BOOTED} is missing)"
        );
        let bus = RpcConn::system_conn(Timeout::Duration(PATIENCE))
            .map_err(bus_error("connect to the system's bus"))?;
        let mut manager = Self(bus);
        let mut rule = rustbus::standard_messages::add_match(
            "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
        );
        manager.ask("AddMatch", &mut rule)?;
        manager.ask("Subscribe", &mut call("Subscribe"))?;
        Ok(manager)
    }

    /// Makes the scope, with a process in it that stays until the answer is dropped.
    ///
    /// # Errors
    /// When systemd refuses.
    pub(super) fn start(&mut self, scope: &Scope, resources: &Resources, unified: bool) -> Result<Keeper> {
        let keeper = Keeper::start()?;
        let mut properties = properties(resources, unified);
        properties.extend([
            ("Description".to_owned(), Value::Text(format!("sandboxed container {}", scope.name))),
            ("Slice".to_owned(), Value::Text(scope.slice.clone())),
            ("Delegate".to_owned(), Value::Flag(true)),
            ("DefaultDependencies".to_owned(), Value::Flag(false)),
            ("PIDs".to_owned(), Value::Members(vec![keeper.0.id()])),
        ]);
        for counted in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
            properties.push((counted.to_owned(), Value::Flag(true)));
        }
        let mut message = call("StartTransientUnit");
        let none: Vec<(String, Properties)> = Vec::new();
        message
            .body
            .push_param4(scope.name.as_str(), "fail", &properties, &none)
            .map_err(bus_error("encode"))?;
        self.job("StartTransientUnit", &mut message).with_context(|| format!("start {}", scope.name))?;
        Ok(keeper)
    }

    /// Changes limits as systemd knows them, or it would undo ours when it reloads.
    ///
    /// # Errors
    /// When systemd refuses.
    pub(super) fn update(
        &mut self,
        Scope { name: unit, .. }: &Scope,
        resources: &Resources,
        unified: bool,
    ) -> Result<()> {
        let properties = properties(resources, unified);
        if properties.is_empty() {
            return Ok(());
        }
        let mut message = call("SetUnitProperties");
        message.body.push_param3(unit.as_str(), true, &properties).map_err(bus_error("encode"))?;
        self.ask("SetUnitProperties", &mut message).map(drop).with_context(|| format!("update {unit}"))
    }

    /// Ends a scope; no error if it has ended.
    ///
    /// # Errors
    /// When systemd refuses.
    pub(super) fn stop(&mut self, Scope { name: unit, .. }: &Scope) -> Result<()> {
        let mut message = call("StopUnit");
        message.body.push_param2(unit.as_str(), "replace").map_err(bus_error("encode"))?;
        match self.job("StopUnit", &mut message) {
            Err(error) if error.to_string().contains(NO_SUCH_UNIT) => Ok(()),
            other => other.with_context(|| format!("stop {unit}")),
        }
    }

    /// Makes a call whose answer is a job, and waits for the job's end.
    fn job(&mut self, what: &'static str, message: &mut MarshalledMessage) -> Result<()> {
        let answer = self.ask(what, message)?;
        let job: String = path(&answer)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{what}: systemd's job did not end in {} s", PATIENCE.as_secs());
            let signal = self.0.wait_signal(Timeout::Duration(left)).map_err(bus_error(what))?;
            if signal.dynheader.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            let mut parts = signal.body.parser();
            let (_, ended, _, result) = parts
                .get4::<u32, rustbus::wire::ObjectPath<String>, String, String>()
                .map_err(bus_error("read JobRemoved"))?;
            if ended.as_ref() == job {
                ensure!(result == "done", "{what}: systemd's job ended as {result:?}");
                return Ok(());
            }
        }
    }

    fn ask(&mut self, what: &'static str, message: &mut MarshalledMessage) -> Result<MarshalledMessage> {
        let sent = self.0.send_message(message).map_err(bus_error(what))?;
        let serial = sent.write_all().map_err(|(context, error)| {
            context.force_finish();
            bus_error(what)(error)
        })?;
        let answer = self.0.wait_response(serial, Timeout::Duration(PATIENCE)).map_err(bus_error(what))?;
        if answer.typ == MessageType::Error {
            let name = answer.dynheader.error_name.clone().unwrap_or_default();
            let text = answer.body.parser().get::<String>().unwrap_or_default();
            bail!("{what}: {name}: {text}");
        }
        Ok(answer)
    }
}

fn bus_error<E: Display>(what: &'static str) -> impl FnOnce(E) -> anyhow::Error {
    move |error| anyhow!("{what}: {error}")
}

fn path(message: &MarshalledMessage) -> Result<String> {
    let path = message.body.parser().get::<rustbus::wire::ObjectPath<String>>();
    path.map(|path| path.as_ref().to_owned()).map_err(bus_error("read a job"))
}

fn call(member: &str) -> MarshalledMessage {
    MessageBuilder::new()
        .call(member)
        .with_interface("org.freedesktop.systemd1.Manager")
        .on("/org/freedesktop/systemd1")
        .at("org.freedesktop.systemd1")
        .build()
}

/// The limits that systemd has properties for (systemd.resource-control(5)). Those of tasks are not among them: the
/// group's own is set by us, as without systemd, and `Delegate` keeps it.
fn properties(resources: &Resources, unified: bool) -> Properties {
    let mut all = Properties::new();
    let mut number = |name: &str, value: u64| all.push((name.to_owned(), Value::Number(value)));
    // -1 is no limit, which is systemd's largest number.
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(memory) = &resources.memory {
        if let Some(value) = memory.limit.filter(|value| *value != 0) {
            number(if unified { "MemoryMax" } else { "MemoryLimit" }, limit(value));
        }
        if let Some(value) = memory.reservation.filter(|value| unified && *value != 0) {
            number("MemoryLow", limit(value));
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            match unified {
                true => number("CPUWeight", super::limits::cpu_weight(shares)),
                false => number("CPUShares", shares),
            }
        }
        if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
            let period = cpu.period.filter(|period| *period != 0).unwrap_or(100_000);
            let second = u64::try_from(quota).map(|quota| quota.saturating_mul(1_000_000) / period);
            // systemd rounds to whole percents, up.
            number("CPUQuotaPerSecUSec", second.map_or(u64::MAX, |usec| usec.next_multiple_of(10_000)));
        }
        if unified {
            for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
                if let Some(bits) = bits(list.as_deref().unwrap_or_default()) {
                    all.push((name.to_owned(), Value::Set(bits)));
                }
            }
        }
    }
    all
}

/// A list such as `0-2,4` as a set of bits, the lowest in the first byte; nothing for an empty list, or what is none.
fn bits(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 8192;
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last.min(MOST) {
            bits.resize(bits.len().max(number / 8 + 1), 0);
            if let Some(byte) = bits.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    (!bits.is_empty()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lies_in_its_slices() {
        let path = |text: &str| Scope::parse(text).map(|scope| scope.path());
        assert_eq!(path("system.slice:docker:c1").unwrap(), "/system.slice/docker-c1.scope");
        assert_eq!(path(":runsc:c1").unwrap(), "/system.slice/runsc-c1.scope");
        assert_eq!(path("-.slice::c1").unwrap(), "/c1.scope");
        assert_eq!(
            path("kubepods-burstable-podx.slice:cri:c").unwrap(),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-c.scope"
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "/docker/c1",
            "a:b",
            "a:b:c:d",
            "system:x:c",
            "a--b.slice:x:c",
            "system.slice:x:",
            "../a.slice:x:c",
        ] {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_sets_of_bits() {
        assert_eq!(bits("0-2,4"), Some(vec![0b1_0111]));
        assert_eq!(bits("9"), Some(vec![0, 2]));
        assert_eq!(bits(""), None);
        assert_eq!(bits("x"), None);
    }
}
