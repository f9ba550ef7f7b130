//! `hooks`.

use super::Case;
use super::subject::Subject;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(super) const CASES: &[Case] = &[
    ("hooks: each is run, in the order of the specification", order),
    ("hooks: several of a kind run in their order", several),
    ("hooks: the state comes on standard input", state_on_input),
    ("hooks: arguments and environment", arguments),
    ("hooks: createRuntime that fails is an error of create", |s| failing(s, "createRuntime")),
    ("hooks: prestart that fails is an error of create", |s| failing(s, "prestart")),
    ("hooks: createContainer that fails is an error of create", |s| failing(s, "createContainer")),
    ("hooks: a program that is not there is an error of create", missing),
    ("hooks: timeout", timeout),
    ("hooks: poststop runs after delete", poststop),
    ("hooks: poststop that fails does not keep the container", poststop_fails),
    ("hooks: poststart that is quick does no harm", poststart),
    ("hooks: createContainer runs in mounts that the host does not see", create_container),
    ("hooks: startContainer runs in the container, before its program", start_container),
    ("hooks: startContainer runs as the container's user, in its folder", start_container_user),
    ("hooks: startContainer that fails is an error of start", |s| start_fails(s, r#""path":"/bin/false""#)),
    ("hooks: startContainer that is not in the container", |s| start_fails(s, r#""path":"BUNDLE/hook""#)),
    ("hooks: startContainer: timeout", |s| {
        start_fails(s, r#""path":"/bin/sleep","args":["sleep","1000"],"timeout":1"#)
    }),
];

fn hook(kind: &str, script: &str) -> String {
    format!(r#""{kind}":[{{"path":"/bin/sh","args":["sh","-c",{}]}}]"#, Value::from(script))
}

fn patch(hooks: &[String]) -> String {
    format!(r#"{{"hooks":{{{}}}}}"#, hooks.join(","))
}

fn order(subject: &Subject) -> Result<()> {
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let hooks: Vec<String> =
        kinds.iter().map(|kind| hook(kind, &format!("echo {kind} >> BUNDLE/order"))).collect();
    let bundle = subject.bundle(&patch(&hooks), "sleep 1000")?;
    let made = subject.create(bundle, &[])?;
    let text = made.text("order");
    // The runc of Debian runs poststart early.
    ensure!(text.starts_with("prestart\ncreateRuntime\ncreateContainer\n"), "after create: {text:?}");
    made.ok("start", &[])?;
    made.wrote("order", "poststart")?;
    subject.ok(&["delete", "--force", &made.id])?;
    let text = made.text("order");
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines == kinds, "after delete: {text:?}");
    Ok(())
}

fn several(subject: &Subject) -> Result<()> {
    let one = |n: u32| format!(r#"{{"path":"/bin/sh","args":["sh","-c","echo {n} >> BUNDLE/order"]}}"#);
    let patch = format!(r#"{{"hooks":{{"createRuntime":[{},{},{}]}}}}"#, one(1), one(2), one(3));
    let made = subject.create(subject.bundle(&patch, "true")?, &[])?;
    ensure!(made.text("order") == "1\n2\n3\n", "{:?}", made.text("order"));
    Ok(())
}

fn state_on_input(subject: &Subject) -> Result<()> {
    let hooks = [hook("createRuntime", "cat > BUNDLE/state"), hook("poststop", "cat > BUNDLE/last")];
    let text = patch(&hooks).replacen('{', r#"{"annotations":{"a":"b"},"#, 1);
    let made = subject.create(subject.bundle(&text, "sleep 1000")?, &[])?;
    let state: Value = serde_json::from_str(&made.text("state")).context("the hook got no JSON")?;
    let text = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(text("id") == made.id && text("bundle") == made.bundle.0.display().to_string(), "{state}");
    ensure!(text("status") == "creating" && text("ociVersion").starts_with("1."), "{state}");
    ensure!(state.pointer("/annotations/a").and_then(Value::as_str) == Some("b"), "{state}");
    let pid = made.state()?.get("pid").cloned();
    ensure!(state.get("pid").cloned() == pid, "{state} has not the pid {pid:?}");
    subject.ok(&["delete", "--force", &made.id])?;
    let last: Value = serde_json::from_str(&made.text("last")).context("poststop got no JSON")?;
    ensure!(last.get("status").and_then(Value::as_str) == Some("stopped"), "{last}");
    Ok(())
}

fn arguments(subject: &Subject) -> Result<()> {
    let text = r#"{"hooks":{"createRuntime":[{"path":"/bin/sh","args":["name","-c","echo $0 $1 $A ${PATH-none} > BUNDLE/args","zero","one"],"env":["A=b"]}]}}"#;
    let made = subject.create(subject.bundle(text, "true")?, &[])?;
    let got = made.text("args");
    ensure!(got.starts_with("zero one b "), "{got:?}");
    Ok(())
}

fn refused(subject: &Subject, text: &str) -> Result<()> {
    let bundle = subject.bundle(text, "echo ran")?;
    let dir = bundle.0.display().to_string();
    let id = crate::run::unique("oci");
    subject.fails(&["create", "--bundle", &dir, &id])?;
    subject.fails(&["state", &id])?;
    subject.left_nothing()
}

fn failing(subject: &Subject, kind: &str) -> Result<()> {
    refused(subject, &patch(&[hook(kind, "exit 1")]))
}

fn missing(subject: &Subject) -> Result<()> {
    refused(subject, r#"{"hooks":{"createRuntime":[{"path":"/no/such/hook"}]}}"#)
}

fn timeout(subject: &Subject) -> Result<()> {
    refused(
        subject,
        r#"{"hooks":{"createRuntime":[{"path":"/bin/sleep","args":["sleep","1000"],"timeout":1}]}}"#,
    )
}

fn poststop(subject: &Subject) -> Result<()> {
    let made = subject.started(&patch(&[hook("poststop", "echo after >> BUNDLE/order")]), "true")?;
    made.becomes("stopped")?;
    ensure!(made.text("order").is_empty(), "it ran before delete");
    made.ok("delete", &[])?;
    ensure!(made.text("order") == "after\n", "it did not run");
    Ok(())
}

fn poststop_fails(subject: &Subject) -> Result<()> {
    let made = subject.started(&patch(&[hook("poststop", "exit 1")]), "true")?;
    made.becomes("stopped")?;
    subject.verb(&["delete", &made.id])?;
    subject.fails(&["state", &made.id])?;
    subject.left_nothing()
}

fn poststart(subject: &Subject) -> Result<()> {
    let made = subject
        .started(&patch(&[hook("poststart", "echo started > BUNDLE/mark")]), "echo ran; sleep 1000")?;
    made.wrote("mark", "started")?;
    made.wrote("out", "ran")
}

/// A folder of the host that both see in /tmp of the container.
const SHARED: &str =
    r#""mounts+":[{"destination":"/tmp","type":"bind","source":"BUNDLE","options":["rbind","rw"]}]"#;

fn create_container(subject: &Subject) -> Result<()> {
    let over = subject.root.join("mnt");
    let at = over.display();
    let script = format!(
        "mount -t tmpfs -o size=64k none {at} && touch {at}/made && cat > BUNDLE/state; \
         readlink /proc/self/ns/mnt /proc/self/ns/net > BUNDLE/spaces"
    );
    let text = patch(&[hook("createContainer", &script)]);
    let made = subject.started(&text, "ls /mnt; sleep 1000")?;
    made.wrote("out", "made").context("the container does not see the hook's mount")?;
    ensure!(!over.join("made").exists(), "the host sees the hook's mount");
    let spaces = made.text("spaces");
    for (kind, its) in ["mnt", "net"].iter().zip(spaces.lines()) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string();
        ensure!(its != ours, "it runs in the host's {kind} namespace");
    }
    ensure!(spaces.lines().count() == 2, "{spaces:?}");
    let state: Value = serde_json::from_str(&made.text("state")).context("the hook got no JSON")?;
    ensure!(state.get("pid") == Some(&Value::from(1)), "{state}: the container's process is not 1");
    Ok(())
}

fn start_container(subject: &Subject) -> Result<()> {
    let script = "cat > /tmp/state; echo $$ > /tmp/pid; cat /proc/1/comm > /tmp/first; uname -n > /tmp/name";
    let text = format!(r#"{{"hooks":{{{}}},{SHARED}}}"#, hook("startContainer", script));
    let made = subject.create(subject.bundle(&text, "cat /tmp/name; echo $$; sleep 1000")?, &[])?;
    ensure!(made.text("state").is_empty(), "it runs by create");
    made.ok("start", &[])?;
    made.wrote("out", "oci\n1\n")?;
    let state: Value = serde_json::from_str(&made.text("state")).context("the hook got no JSON")?;
    let text = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(text("id") == made.id && text("status") == "created", "{state}");
    ensure!(state.get("pid") == Some(&Value::from(1)), "{state}: the container's process is not 1");
    let pid: u32 = made.text("pid").trim().parse().context("the hook has no process id")?;
    ensure!(pid > 1, "the hook is the first process of the container");
    Ok(())
}

fn start_container_user(subject: &Subject) -> Result<()> {
    let script = "id -u > /tmp/user; pwd > /tmp/pwd; echo $A > /tmp/env";
    let user = r#""process":{"user":{"uid":1000,"gid":1000},"cwd":"/usr","env":["PATH=/bin","A=b"]}"#;
    let text = format!(r#"{{"hooks":{{{}}},{SHARED},{user}}}"#, hook("startContainer", script));
    let bundle = subject.bundle(&text, "sleep 1000")?;
    std::os::unix::fs::chown(&bundle.0, Some(1000), Some(1000))?;
    let made = subject.create(bundle, &[])?;
    made.ok("start", &[])?;
    let (user, pwd, env) = (made.text("user"), made.text("pwd"), made.text("env"));
    ensure!((user.trim(), pwd.trim(), env.trim()) == ("1000", "/usr", "b"), "{user:?} {pwd:?} {env:?}");
    Ok(())
}

fn start_fails(subject: &Subject, hook: &str) -> Result<()> {
    let text = format!(r#"{{"hooks":{{"startContainer":[{{{hook}}}]}},{SHARED}}}"#);
    let bundle = subject.bundle(&text, "echo ran > /tmp/ran")?;
    // It is there on the host.
    std::fs::copy("/bin/true", bundle.0.join("hook"))?;
    let made = subject.create(bundle, &[])?;
    let out = subject.verb(&["start", &made.id])?;
    // The runc of Debian does not wait for it.
    ensure!(out.code != 0 || !subject.runtime.is_ours(), "start succeeds");
    made.becomes("stopped")?;
    ensure!(made.text("ran").is_empty(), "the program ran");
    Ok(())
}
