//! What else a container is like inside: names, namespaces, kernel parameters.

use super::Inside;

const fn inside(name: &'static str, patch: &'static str, script: &'static str, want: &'static str) -> Inside {
    Inside { name, patch, script, want }
}

pub(super) const INSIDE: &[Inside] = &[
    inside(
        "hostname",
        r#"{"hostname":"some-name"}"#,
        "uname -n; cat /proc/sys/kernel/hostname",
        "some-name\nsome-name",
    ),
    inside(
        "ours: domainname",
        r#"{"domainname":"some.domain"}"#,
        "cat /proc/sys/kernel/domainname",
        "some.domain",
    ),
    inside(
        "linux.sysctl: kernel.domainname",
        r#"{"linux":{"sysctl":{"kernel.domainname":"by.sysctl"}}}"#,
        "cat /proc/sys/kernel/domainname",
        "by.sysctl",
    ),
    inside(
        "linux.sysctl: one that has the value",
        r#"{"linux":{"sysctl":{"kernel.msgmni":"32000"},"readonlyPaths":["/proc/sys"]}}"#,
        "cat /proc/sys/kernel/msgmni",
        "32000",
    ),
    inside("linux.namespaces: pid: the program is the first process", "{}", "echo $$", "1"),
    inside(
        "linux.namespaces: pid: nothing of the host is seen",
        "{}",
        "ls -d /proc/[0-9]* | wc -l | grep -qE '^[1-5]$' && echo few",
        "few",
    ),
    inside("linux.namespaces: pid: the first has no parent", "{}", "grep PPid /proc/1/status | cut -f2", "0"),
    inside(
        "linux.namespaces: network: there is no other interface",
        "{}",
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v -e lo -e sit0 -e ip6tnl0 -e tunl0 | wc -l",
        "0",
    ),
    inside("linux.namespaces: ipc: there are no objects", "{}", "ipcs -m -q -s | grep -c 0x || true", "0"),
    inside(
        "linux.namespaces: mount: nothing of the host is seen",
        "{}",
        "grep -c BUNDLE /proc/self/mounts || true",
        "0",
    ),
    inside(
        "linux.namespaces: uts: names can be changed without the host",
        r#"{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"],"effective":["CAP_SYS_ADMIN"],"permitted":["CAP_SYS_ADMIN"]}}}"#,
        "hostname other && uname -n",
        "other",
    ),
    inside("annotations are accepted", r#"{"annotations":{"a.b":"c","empty":""}}"#, "echo ran", "ran"),
    inside(
        "fields that are not known are left out",
        r#"{"x-extension":{"a":1},"process":{"x-other":true},"linux":{"x":[]}}"#,
        "echo ran",
        "ran",
    ),
    inside("null stands for a missing value", r#"{"process":{"additionalGids":null}}"#, "echo ran", "ran"),
    inside(
        "linux.rootfsPropagation: private",
        r#"{"linux":{"rootfsPropagation":"private"}}"#,
        "echo ran",
        "ran",
    ),
    inside(
        "linux.rootfsPropagation: rslave",
        r#"{"linux":{"rootfsPropagation":"rslave"}}"#,
        "echo ran",
        "ran",
    ),
    inside("ociVersion: 1.0.0", r#"{"ociVersion":"1.0.0"}"#, "echo ran", "ran"),
    inside("ours: ociVersion: 1.2.0", r#"{"ociVersion":"1.2.0"}"#, "echo ran", "ran"),
    inside(
        "linux.resources: limits are accepted",
        r#"{"linux":{"cgroupsPath":"/sentrybox-oci-a","resources":{"memory":{"limit":268435456},"cpu":{"shares":512,"quota":100000,"period":100000},"pids":{"limit":100}}}}"#,
        "echo ran",
        "ran",
    ),
    inside(
        "ours: mounts: cgroup shows what the container has",
        r#"{"mounts+":[{"destination":"/sys","type":"sysfs","source":"sysfs"},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid"]}],"linux":{"cgroupsPath":"/sentrybox-oci-c","resources":{"memory":{"limit":268435456},"cpu":{"quota":50000,"period":100000},"pids":{"limit":100}}}}"#,
        "cd /sys/fs/cgroup && cat memory.max cpu.max pids.max && grep -x $$ cgroup.procs && stat -f -c %T . && ! touch x 2>/dev/null && cat /proc/self/cgroup",
        "268435456\n50000 100000\n100\n1\ncgroup2fs\n0::/",
    ),
    inside(
        "linux.resources.pids: the limit holds",
        r#"{"linux":{"cgroupsPath":"/sentrybox-oci-b","resources":{"pids":{"limit":5}}}}"#,
        "python3 -c 'import os\nn=0\ntry:\n  while n < 20:\n    if os.fork() == 0: import signal; signal.pause()\n    n += 1\nexcept OSError: pass\nprint(n)'",
        "3",
    ),
];
