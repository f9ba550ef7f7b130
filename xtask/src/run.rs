//! Starts programs: with a deadline, their output kept, and ended by their own pid.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A folder under `target/`, made if missing.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn target(sub: &str) -> Result<PathBuf> {
    let path = workspace().join("target").join(sub);
    std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

/// A name not used before, for containers and temporary files.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code, or 128+n for a signal.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// Whether it was killed at the deadline.
    pub(crate) timed_out: bool,
}

/// The shell's view of an exit status.
pub(crate) fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// When this run of xtask must be over, if it has to.
static END: OnceLock<Instant> = OnceLock::new();

/// Lets nothing that is started here run beyond `total` from now: what a broken sandbox holds up must not hold up the rest.
pub(crate) fn limit_all(total: Duration) {
    END.get_or_init(|| Instant::now() + total);
}

/// A limit, cut to what is left of the whole run.
pub(crate) fn within(limit: Duration) -> Duration {
    END.get().map_or(limit, |end| limit.min(end.saturating_duration_since(Instant::now())))
}

/// Waits for a child, and kills it at the deadline. True when it had to.
///
/// # Errors
/// When it cannot be waited for.
pub(crate) fn wait_deadline(child: &mut Child, limit: Duration) -> Result<(ExitStatus, bool)> {
    let limit = within(limit);
    let (done, watch) = mpsc::channel::<()>();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    let watchdog = std::thread::spawn(move || {
        let late = watch.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        late && nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
    });
    let status = child.wait()?;
    drop(done);
    let killed = watchdog.join().unwrap_or(false);
    Ok((status, killed))
}

/// Runs a program to its end. Its output goes to files, so that what it leaves running holds no pipe.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    output_watched(command, limit, limit)
}

/// Waits for a child, and kills it at the deadline, or when the file has not grown for `silence`. True when it had to.
fn wait_watched(
    child: &mut Child,
    limit: Duration,
    silence: Duration,
    file: &Path,
) -> Result<(ExitStatus, bool)> {
    let end = Instant::now() + within(limit);
    let (mut size, mut grown) = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        let now = Instant::now();
        let length = std::fs::metadata(file).map_or(0, |meta| meta.len());
        if length != size {
            (size, grown) = (length, now);
        }
        if now > end || now > grown + silence {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Like `output`, but gives up sooner: when nothing has been printed for `silence`.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn output_watched(command: &mut Command, limit: Duration, silence: Duration) -> Result<Output> {
    if within(limit).is_zero() {
        let stderr = "not started: the time of this run is over".to_owned();
        return Ok(Output { code: 137, stdout: String::new(), stderr, timed_out: true });
    }
    let base = target("tmp")?.join(unique("out"));
    let (out, err) = (base.with_extension("stdout"), base.with_extension("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
    let (status, timed_out) = if silence < limit {
        wait_watched(&mut child, limit, silence, &out)?
    } else {
        wait_deadline(&mut child, limit)?
    };
    let take = |path: &Path| -> Result<String> {
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        std::fs::remove_file(path)?;
        Ok(text)
    };
    Ok(Output { code: code_of(status), stdout: take(&out)?, stderr: take(&err)?, timed_out })
}

/// Runs a program that must succeed, its output on ours.
///
/// # Errors
/// When it fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Asks again and again until there is an answer or the time is over.
///
/// # Errors
/// At the deadline, with what was waited for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within(limit);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
