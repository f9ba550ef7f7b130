//! Options of `docker run`.

use super::Case;
use super::daemon::{Dockerd, IMAGE};
use anyhow::{Result, ensure};

/// A name, options, and a command.
type Compared = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Prints the errno of calls that docker's default profile forbids, some with arguments that it allows.
const CALLS: &str = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = {'acct': 163, 'add_key': 248, 'bpf': 321, 'clock_adjtime': 305, 'keyctl': 250, 'mount': 165, 'umount2': 166,
         'kexec_load': 246, 'name_to_handle_at': 303, 'perf_event_open': 298, 'personality': 135, 'pivot_root': 155,
         'reboot': 169, 'setns': 308, 'swapon': 167, 'unshare': 272, 'getpid': 39, 'init_module': 175}
for name, nr in sorted(calls.items()):
    first = 0x10000000 if name == 'unshare' else 0
    result = libc.syscall(nr, first, 0, 0, 0, 0)
    print(name, ctypes.get_errno() if result == -1 else 'done')
";

/// Commands whose output and exit status must be runc's.
pub(super) const COMPARED: &[Compared] = &[
    ("echo", &[], &["echo", "hello"]),
    ("exit status", &[], &["sh", "-c", "echo out; echo err >&2; exit 42"]),
    (
        "killed by a signal",
        &[],
        &[
            "python3",
            "-c",
            "import os, subprocess; print(subprocess.run(['sh', '-c', 'kill -SEGV $$']).returncode)",
        ],
    ),
    ("python", &[], &["python3", "-c", "import os; print(os.getpid(), os.getcwd(), sum(range(1000)))"]),
    (
        "files",
        &[],
        &[
            "bash",
            "-c",
            "cd /root && seq 1000 | split -l 10 && ls | wc -l && cat x* | md5sum; id; hostname | wc -l",
        ],
    ),
    ("--user and --group-add", &["--user=1000:1001", "--group-add=5"], &["sh", "-c", "id; umask; touch /x"]),
    ("--read-only", &["--read-only"], &["sh", "-c", "touch /x /dev/x; echo $?; touch /dev/shm/x; echo $?"]),
    (
        "--tmpfs",
        &["--tmpfs=/t:size=1m,mode=1770,uid=7", "--read-only"],
        &[
            "sh",
            "-c",
            "stat -c '%a %u %g' /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2; head -c 2000000 /dev/zero > /t/x; ls -l /t/x | cut -d' ' -f5",
        ],
    ),
    ("--cap-drop", &["--cap-drop=all"], &["sh", "-c", "grep Cap /proc/self/status; chown 1 /root; echo $?"]),
    (
        "--cap-add",
        &["--cap-drop=all", "--cap-add=CHOWN"],
        &["sh", "-c", "grep Cap /proc/self/status; chown 1 /root; echo $?"],
    ),
    ("default capabilities", &[], &["grep", "Cap", "/proc/self/status"]),
    (
        "--ulimit",
        &["--ulimit=nofile=100:200", "--ulimit=core=0", "--ulimit=stack=1000000"],
        &["bash", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -s"],
    ),
    (
        "--hostname",
        &["--hostname=foo", "--domainname=bar"],
        &["sh", "-c", "hostname; cat /proc/sys/kernel/domainname /etc/hostname"],
    ),
    ("--init", &["--init"], &["sh", "-c", "cat /proc/1/comm; ps -o comm="]),
    (
        "--env and --workdir",
        &["--env=A=b c", "--workdir=/made/up"],
        &["sh", "-c", "echo $A $HOME $PATH; pwd; stat -c %a ."],
    ),
    ("--entrypoint", &["--entrypoint=/bin/echo"], &["x", "y"]),
    (
        "no-new-privileges",
        &["--security-opt=no-new-privileges"],
        &["sh", "-c", "grep NoNewPrivs /proc/self/status; su -c id daemon"],
    ),
    ("default seccomp profile", &[], &["python3", "-c", CALLS]),
    ("seccomp=unconfined", &["--security-opt=seccomp=unconfined"], &["grep", "Seccomp", "/proc/self/status"]),
    ("mode of seccomp", &[], &["grep", "Seccomp:", "/proc/self/status"]),
    ("--shm-size", &["--shm-size=1m"], &["sh", "-c", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"]),
    ("--oom-score-adj", &["--oom-score-adj=500"], &["cat", "/proc/self/oom_score_adj"]),
    (
        "--device",
        &["--device=/dev/null:/dev/foo"],
        &["sh", "-c", "stat -c '%F %t %T %a' /dev/foo; echo x > /dev/foo; echo $?"],
    ),
    (
        "/dev",
        &[],
        &[
            "sh",
            "-c",
            "cd /dev; ls | tr '\\n' ' '; stat -c '%n %F %a' null zero full random urandom tty ptmx fd shm pts stdin",
        ],
    ),
    (
        "masked and read-only paths",
        &[],
        &["sh", "-c", "echo 1 > /proc/sys/vm/swappiness; echo $?; ls /sys/firmware | wc -l"],
    ),
    (
        "--pids-limit",
        &["--pids-limit=10"],
        &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.1 & done; wait; echo all"],
    ),
    (
        "--memory",
        &["--memory=64m", "--memory-swap=64m"],
        &["python3", "-c", "x = bytearray(300 << 20); print(len(x))"],
    ),
    ("--ipc=private", &["--ipc=private"], &["sh", "-c", "ipcs -q | wc -l; stat -f -c %T /dev/shm"]),
    ("streams", &["-i"], &["sh", "-c", "cat; echo end"]),
];

/// What cannot be compared by its output.
pub(super) const CASES: &[Case] = &[
    ("--env-file", env_file),
    ("--cpus", cpus),
    ("--memory is seen inside", memory_is_seen),
    ("--security-opt seccomp=FILE", seccomp_file),
    ("a seccomp profile that kills", seccomp_kills),
    ("no such program", no_such_program),
    ("a program that may not be executed", no_permission),
    ("out of memory is told", out_of_memory),
    ("docker update", update),
];

fn env_file(docker: &Dockerd) -> Result<()> {
    let file = docker.scratch.0.join("env");
    std::fs::write(&file, "ONE=1\n# no\nTWO=a b\n")?;
    let flag = format!("--env-file={}", file.display());
    let got = docker.sh(&[&flag], "echo $ONE,$TWO")?;
    ensure!(got == "1,a b", "{got:?}");
    Ok(())
}

fn cpus(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--cpus=0.5", "--cpu-shares=300"], "while :; do :; done")?;
    let got = (container.group_file("cpu", "cpu.cfs_quota_us")?, container.group_file("cpu", "cpu.shares")?);
    ensure!(got == ("50000".to_owned(), "300".to_owned()), "{got:?}");
    // What it uses must be less than a processor.
    let usage = || -> Result<u64> { Ok(container.group_file("cpuacct", "cpuacct.usage")?.parse()?) };
    let throttled = || -> Option<()> {
        let stat = container.group_file("cpu", "cpu.stat").ok()?;
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        (line.parse::<u64>().ok()? > 2).then_some(())
    };
    crate::run::until("the container is throttled", super::daemon::LIMIT, throttled)?;
    ensure!(usage()? > 0, "no processor time is counted");
    Ok(())
}

fn memory_is_seen(docker: &Dockerd) -> Result<()> {
    let got = docker.sh(&["--memory=64m"], "grep MemTotal /proc/meminfo | tr -s ' '")?;
    ensure!(got == "MemTotal: 65536 kB", "{got:?}");
    Ok(())
}

fn profile(docker: &Dockerd, action: &str) -> Result<String> {
    let path = docker.scratch.0.join("seccomp.json");
    let rule = format!(r#"{{"names":["chmod","fchmodat","fchmodat2"],"action":"{action}"}}"#);
    std::fs::write(&path, format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#))?;
    Ok(format!("--security-opt=seccomp={}", path.display()))
}

fn seccomp_file(docker: &Dockerd) -> Result<()> {
    let flag = profile(docker, "SCMP_ACT_ERRNO")?;
    let got = docker.sh(&[&flag], "chmod 700 /root 2>&1; mkdir /x && echo made")?;
    ensure!(got.contains("Operation not permitted") && got.ends_with("made"), "{got:?}");
    Ok(())
}

fn seccomp_kills(docker: &Dockerd) -> Result<()> {
    let flag = profile(docker, "SCMP_ACT_KILL_PROCESS")?;
    let out = docker.docker(&["run", "--rm", "--network=none", &flag, IMAGE, "chmod", "700", "/root"])?;
    ensure!(out.code == 159, "{out:?}");
    Ok(())
}

fn no_such_program(docker: &Dockerd) -> Result<()> {
    let out = docker.docker(&["run", "--rm", "--network=none", IMAGE, "no-such-program"])?;
    ensure!(out.code == 127 && out.stderr.contains("executable file not found in $PATH"), "{out:?}");
    let container = docker.background(&[], "sleep 1000")?;
    let out = docker.docker(&["exec", &container.id, "no-such-program"])?;
    ensure!(out.code == 127 || out.code == 126, "exec: {out:?}");
    Ok(())
}

fn no_permission(docker: &Dockerd) -> Result<()> {
    let out = docker.docker(&["run", "--rm", "--network=none", IMAGE, "/etc/passwd"])?;
    ensure!(out.code == 126 && out.stderr.contains("permission denied"), "{out:?}");
    Ok(())
}

fn out_of_memory(docker: &Dockerd) -> Result<()> {
    let flags = ["--memory=64m", "--memory-swap=64m"];
    let container = docker.background(&flags, "exec python3 -c 'x = bytearray(300 << 20)'")?;
    container.becomes(".State.Status", "exited")?;
    let code = container.inspect(".State.ExitCode")?;
    ensure!(code == "137", "exit code {code}");
    container.becomes(".State.OOMKilled", "true")
}

fn update(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--memory=64m", "--pids-limit=20"], "sleep 1000")?;
    docker.ok(&["update", "--memory=128m", "--memory-swap=256m", "--pids-limit=30", &container.id])?;
    let limit = container.group_file("memory", "memory.limit_in_bytes")?;
    ensure!(limit == (128 << 20).to_string(), "memory.limit_in_bytes is {limit}");
    let seen = container.sh("grep MemTotal /proc/meminfo | tr -s ' '")?;
    ensure!(seen == "MemTotal: 131072 kB", "{seen:?}");
    Ok(())
}
