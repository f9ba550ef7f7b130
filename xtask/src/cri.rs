//! A pod by containerd's CRI plugin, driven over its socket: a sandbox, two containers in it that share a folder.

use crate::bundle::Scratch;
use crate::containerd::Containerd;
use crate::proc;
use crate::report::Report;
use crate::{apt, image, run};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// States of a container.
const EXITED: i64 = 2;
/// Of namespaces: the container's own, and the host's.
const OWN: u32 = 1;
const HOST: u32 = 2;

/// A client.
struct Cri<'a> {
    daemon: &'a Containerd,
    scratch: Scratch,
}

impl<'a> Cri<'a> {
    fn new(daemon: &'a Containerd) -> Result<Self> {
        apt::ensure(&["protobuf-compiler", "python3-grpcio", "python3-protobuf"])?;
        let scratch = Scratch::new()?;
        let mut protoc = Command::new("protoc");
        protoc
            .arg("--proto_path=xtask/cri")
            .arg(format!("--python_out={}", scratch.0.display()))
            .arg("cri.proto");
        let out = run::output(&mut protoc, LIMIT)?;
        ensure!(out.code == 0, "protoc: {}", out.stderr.trim());
        Ok(Self { daemon, scratch })
    }

    fn call(&self, method: &str, request: &Value) -> Result<Value> {
        // The system's own: the modules are Debian's.
        let mut python = Command::new("/usr/bin/python3");
        python.arg("xtask/cri/drive.py").arg(self.daemon.socket()).arg(method).arg(request.to_string());
        python.env("PYTHONPATH", &self.scratch.0).env("PYTHONDONTWRITEBYTECODE", "1");
        let out = run::output(&mut python, LIMIT)?;
        if out.code != 0 {
            bail!("{method}: {}", out.stderr.trim());
        }
        serde_json::from_str(&out.stdout).with_context(|| format!("{method}: {}", out.stdout))
    }

    fn id(&self, method: &str, request: &Value, field: &str) -> Result<String> {
        let answer = self.call(method, request)?;
        Ok(answer
            .get(field)
            .and_then(Value::as_str)
            .with_context(|| format!("{method}: {answer}"))?
            .to_owned())
    }

    /// What a script prints in a container.
    fn script(&self, id: &str, script: &str) -> Result<String> {
        let request = json!({"container_id": id, "cmd": ["sh", "-c", script], "timeout": 30});
        let answer = self.call("ExecSync", &request)?;
        let code = answer.get("exit_code").and_then(Value::as_i64).unwrap_or(0);
        let output = decode(answer.get("stdout").and_then(Value::as_str).unwrap_or_default())?;
        ensure!(code == 0, "{script} gives {code}: {output}");
        Ok(output.trim().to_owned())
    }
}

/// Undoes base64, the form of bytes in JSON.
fn decode(text: &str) -> Result<String> {
    let digit = |c: u8| -> Result<u32> {
        let at = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("no base64: {text}"),
        };
        Ok(u32::from(at))
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().try_fold(0, |bits, c| anyhow::Ok(bits << 6 | digit(*c)?))?;
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend(bits.to_be_bytes().into_iter().skip(1).take(group.len() - 1));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs the pod.
///
/// # Errors
/// When the client cannot be installed.
pub(crate) fn run(daemon: &Containerd, report: &mut Report) -> Result<()> {
    let cri = Cri::new(daemon)?;
    let shared = cri.scratch.0.join("shared");
    std::fs::create_dir(&shared)?;
    let before = proc::descendants();
    let config = json!({
        "metadata": {"name": "pod", "uid": run::unique("pod"), "namespace": "tests"},
        "hostname": "pod",
        "linux": {"security_context": {"namespace_options": {"network": HOST, "pid": OWN}}},
    });
    let request = json!({"config": config, "runtime_handler": "runsc"});
    let pod = match cri.id("RunPodSandbox", &request, "pod_sandbox_id") {
        Ok(pod) => pod,
        Err(error) => {
            report.record("CRI: RunPodSandbox", Err(error));
            return Ok(());
        }
    };
    let made =
        ["one", "two"].map(|name| container(&cri, &pod, &config, name, &["sleep", "1000"], &json!({})));
    let [one, two] = made;
    match (one, two) {
        (Ok(one), Ok(two)) => {
            report.record("CRI: two containers in one sandbox", one_sandbox(&cri, &before, &one));
            report.record("CRI: ExecSync, its output and exit status", exec_sync(&cri, &one));
            report.record("CRI: the folder that both mount", share(&cri, &one, &two));
            report.record("CRI: stats", stats(&cri, &one));
            report.record(
                "CRI: a container with a limit: stats, update, its own lack of memory",
                limited(&cri, &pod, &config, &one),
            );
            report.record("CRI: StopContainer leaves the other", stop_one(&cri, &one, &two));
        }
        (one, two) => {
            report.record("CRI: the first container", one.map(drop));
            report.record("CRI: the second container", two.map(drop));
        }
    }
    report.record("CRI: StopPodSandbox and RemovePodSandbox leave nothing", remove(&cri, &pod, &before));
    Ok(())
}

fn container(
    cri: &Cri<'_>,
    pod: &str,
    config: &Value,
    name: &str,
    command: &[&str],
    resources: &Value,
) -> Result<String> {
    let request = json!({
        "pod_sandbox_id": pod,
        "sandbox_config": config,
        "config": {
            "metadata": {"name": name}, "image": {"image": image::BOX},
            "command": command,
            "mounts": [{"container_path": "/shared", "host_path": cri.scratch.0.join("shared")}],
            "linux": {
                "resources": resources,
                "security_context": {"namespace_options": {"network": HOST, "pid": OWN}},
            },
        },
    });
    let id = cri.id("CreateContainer", &request, "container_id")?;
    cri.call("StartContainer", &json!({"container_id": id}))?;
    Ok(id)
}

/// One sentry, a gofer for each container.
fn one_sandbox(cri: &Cri<'_>, before: &std::collections::BTreeSet<proc::Pid>, one: &str) -> Result<()> {
    let now = proc::descendants();
    let all: Vec<String> = now.difference(before).map(|pid| proc::describe(*pid)).collect();
    let count = |what: &str| all.iter().filter(|process| process.contains(what)).count();
    let found = (count("containerd-shim-runsc"), count("runsc boot"), count("runsc gofer"));
    ensure!(found == (1, 1, 3), "shims, sentries and gofers: {found:?} of {all:?}");
    ensure!(
        cri.script(one, "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l")?.starts_with("sleep\n"),
        "process 1"
    );
    ensure!(cri.script(one, "hostname")? == "pod", "host name {}", cri.script(one, "hostname")?);
    Ok(())
}

fn exec_sync(cri: &Cri<'_>, id: &str) -> Result<()> {
    let request =
        json!({"container_id": id, "cmd": ["sh", "-c", "echo out; echo err >&2; exit 6"], "timeout": 30});
    let answer = cri.call("ExecSync", &request)?;
    ensure!(answer == json!({"stdout": "b3V0Cg==", "stderr": "ZXJyCg==", "exit_code": 6}), "{answer}");
    let request = json!({"container_id": id, "cmd": ["sleep", "1000"], "timeout": 1});
    let late = cri.call("ExecSync", &request).map(drop);
    ensure!(late.is_err_and(|error| format!("{error:#}").contains("DEADLINE_EXCEEDED")), "no timeout");
    ensure!(cri.script(id, "ps | grep -c '[s]leep'")? == "1", "the process is left");
    Ok(())
}

fn share(cri: &Cri<'_>, one: &str, two: &str) -> Result<()> {
    cri.script(one, "echo here > /shared/file; echo mine > /tmp/file")?;
    ensure!(
        cri.script(two, "cat /shared/file; ls /tmp/file 2>/dev/null | wc -l")? == "here\n0",
        "the other sees {}",
        cri.script(two, "cat /shared/file; ls /tmp")?
    );
    ensure!(std::fs::read_to_string(cri.scratch.0.join("shared/file"))? == "here\n", "not on the host");
    Ok(())
}

/// Processor time in nanoseconds and bytes of memory.
fn usage(cri: &Cri<'_>, id: &str) -> Result<(u64, u64)> {
    let answer = cri.call("ContainerStats", &json!({"container_id": id}))?;
    let number = |path: &str| -> Result<u64> {
        let value = answer.pointer(path).and_then(Value::as_str).with_context(|| answer.to_string())?;
        Ok(value.parse()?)
    };
    Ok((
        number("/stats/cpu/usage_core_nano_seconds/value")?,
        number("/stats/memory/working_set_bytes/value")?,
    ))
}

fn stats(cri: &Cri<'_>, id: &str) -> Result<()> {
    let before = usage(cri, id)?;
    ensure!(before.0 > 0 && before.1 > 0, "CPU time and memory: {before:?}");
    // What comes last is executed in the shell's place, which holds nothing then.
    let hold =
        "sh -c 'x=$(head -c 20000000 /dev/zero | tr \"\\0\" a); sleep 1000; :' > /dev/null 2>&1 & echo $!";
    let holder = cri.script(id, hold)?;
    let holds = || usage(cri, id).ok().filter(|now| now.0 > before.0 && now.1 > before.1 + 20_000_000);
    run::until("20 MB are counted", LIMIT, holds)
        .with_context(|| format!("{before:?}, {:?}", usage(cri, id)))?;
    cri.script(id, &format!("kill {holder}")).map(drop)
}

fn limited(cri: &Cri<'_>, pod: &str, config: &Value, other: &str) -> Result<()> {
    let script = "until [ -e /shared/go ]; do sleep 0.1; done; x=aaaaaaaa; while :; do x=$x$x; done";
    let limit = json!({"memory_limit_in_bytes": 256 << 20});
    let id = container(cri, pod, config, "three", &["sh", "-c", script], &limit)?;
    let total = || cri.script(&id, "sed -n 's/^MemTotal: *//p' /proc/meminfo");
    ensure!(total()? == "262144 kB", "it sees {} of memory", total()?);
    let smaller = json!({"container_id": id, "linux": {"memory_limit_in_bytes": 64 << 20}});
    cri.call("UpdateContainerResources", &smaller)?;
    ensure!(total()? == "65536 kB", "after the update it sees {} of memory", total()?);
    std::fs::write(cri.scratch.0.join("shared/go"), "")?;
    let field = |name: &str| {
        let status = cri.call("ContainerStatus", &json!({"container_id": id})).ok()?;
        status.pointer(&format!("/status/{name}")).cloned()
    };
    run::until("it ends for want of memory", LIMIT, || {
        (field("state") == Some(json!(EXITED))).then_some(())
    })?;
    run::until("that is known as the reason", LIMIT, || {
        (field("reason") == Some(json!("OOMKilled"))).then_some(())
    })
    .with_context(|| format!("{:?}", field("reason")))?;
    ensure!(field("exit_code") == Some(json!(137)), "exit code {:?}", field("exit_code"));
    cri.call("RemoveContainer", &json!({"container_id": id}))?;
    ensure!(cri.script(other, "echo well")? == "well", "the other suffers");
    Ok(())
}

fn stop_one(cri: &Cri<'_>, one: &str, two: &str) -> Result<()> {
    cri.call("StopContainer", &json!({"container_id": two, "timeout": 0}))?;
    let status = cri.call("ContainerStatus", &json!({"container_id": two}))?;
    let number = |field: &str| status.pointer(&format!("/status/{field}")).and_then(Value::as_i64);
    ensure!((number("state"), number("exit_code")) == (Some(EXITED), Some(137)), "{status}");
    cri.call("RemoveContainer", &json!({"container_id": two}))?;
    ensure!(cri.script(one, "echo well")? == "well", "the other suffers");
    Ok(())
}

fn remove(cri: &Cri<'_>, pod: &str, before: &std::collections::BTreeSet<proc::Pid>) -> Result<()> {
    cri.call("StopPodSandbox", &json!({"pod_sandbox_id": pod}))?;
    cri.call("RemovePodSandbox", &json!({"pod_sandbox_id": pod}))?;
    let left = || -> Vec<proc::Pid> { proc::descendants().difference(before).copied().collect() };
    let described = || left().iter().map(|pid| proc::describe(*pid)).collect::<Vec<_>>().join(", ");
    run::until("its processes end", Duration::from_secs(10), || {
        left().iter().for_each(|pid| proc::reap(*pid));
        left().is_empty().then_some(())
    })
    .with_context(described)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn undoes_base64() {
        for (text, plain) in [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjZA==", "abcd")]
        {
            assert_eq!(decode(text).expect("valid"), plain);
        }
        assert!(decode("!!!!").is_err());
    }
}
