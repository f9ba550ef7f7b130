//! `install` and `uninstall`: docker's knowledge of this runtime.
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::log;

/// What both take.
#[derive(Args, Debug)]
pub(crate) struct Install {
    /// Docker's configuration
    #[arg(long = "config_file", visible_alias = "config-file", default_value = "/etc/docker/daemon.json")]
    pub(crate) config_file: PathBuf,
    /// Name that docker knows the runtime by
    #[arg(long, default_value = "runsc")]
    pub(crate) runtime: String,
    /// Flags that docker starts the runtime with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) flags: Vec<String>,
}

/// The configuration; an empty one where there is none.
fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let Value::Object(map) = value else { bail!("{} is no JSON object", path.display()) };
    Ok(map)
}

/// Writes the configuration in one step, and keeps the one before as NAME~.
fn write(path: &Path, config: Map<String, Value>) -> Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let fresh = beside(".new");
    let text = serde_json::to_string_pretty(&Value::Object(config))?;
    let mut file = File::create(&fresh).with_context(|| format!("write {}", fresh.display()))?;
    writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", fresh.display()))?;
    if path.exists() {
        std::fs::copy(path, beside("~")).with_context(|| format!("keep {}", path.display()))?;
    }
    std::fs::rename(&fresh, path).with_context(|| format!("write {}", path.display()))
}

fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<bool> {
    let before = read(path)?;
    let mut after = before.clone();
    edit(&mut after)?;
    if after == before {
        return Ok(false);
    }
    write(path, after)?;
    Ok(true)
}

fn runtimes(config: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let runtimes = config.entry("runtimes").or_insert_with(|| json!({}));
    runtimes.as_object_mut().context("\"runtimes\" is no JSON object")
}

/// Installs.
///
/// # Errors
/// When the configuration makes no sense, or cannot be written.
pub(crate) fn install(args: &Install) -> Result<i32> {
    let program = std::env::current_exe().context("this program")?;
    let mut runtime = json!({"path": program});
    if let (false, Some(runtime)) = (args.flags.is_empty(), runtime.as_object_mut()) {
        runtime.insert("runtimeArgs".to_owned(), json!(args.flags));
    }
    let changed = change(&args.config_file, |config| {
        runtimes(config)?.insert(args.runtime.clone(), runtime);
        Ok(())
    })?;
    let path = args.config_file.display();
    log::say(&if changed {
        format!(
            "{} is in {path}; docker knows it once it is restarted (systemctl restart docker)",
            args.runtime
        )
    } else {
        format!("{} was in {path} already", args.runtime)
    });
    Ok(0)
}

/// Uninstalls.
///
/// # Errors
/// When the configuration makes no sense, or cannot be written.
pub(crate) fn uninstall(args: &Install) -> Result<i32> {
    let changed = change(&args.config_file, |config| {
        let runtimes = runtimes(config)?;
        runtimes.remove(&args.runtime);
        if runtimes.is_empty() {
            config.remove("runtimes");
        }
        if config.get("default-runtime").and_then(Value::as_str) == Some(&args.runtime) {
            config.remove("default-runtime");
        }
        Ok(())
    })?;
    let path = args.config_file.display();
    log::say(&if changed {
        format!("{} is no longer in {path}; docker forgets it once it is restarted", args.runtime)
    } else {
        format!("{} is not in {path}", args.runtime)
    });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_keep_what_is_there() {
        let dir = std::env::temp_dir().join(format!("runsc-install-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("daemon.json");
        let text = r#"{"debug": true, "runtimes": {"other": {"path": "/x"}}}"#;
        std::fs::write(&path, text).unwrap();
        let args =
            Install { config_file: path.clone(), runtime: "r".to_owned(), flags: vec!["--debug".to_owned()] };
        install(&args).unwrap();
        let installed = read(&path).unwrap();
        assert_eq!(installed["runtimes"]["r"]["runtimeArgs"], json!(["--debug"]));
        assert_eq!(installed["runtimes"]["other"]["path"], "/x");
        assert_eq!(std::fs::read_to_string(dir.join("daemon.json~")).unwrap(), text);
        install(&args).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.join("daemon.json~")).unwrap(),
            text,
            "nothing changed: no new backup"
        );
        uninstall(&args).unwrap();
        assert_eq!(Value::Object(read(&path).unwrap()), serde_json::from_str::<Value>(text).unwrap());
        std::fs::write(&path, "[]").unwrap();
        assert!(install(&args).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
