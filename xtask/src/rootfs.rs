//! The Debian root that the userland tests run in: made by debootstrap once, kept under target/.

use crate::{apt, run};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "bookworm";
const PACKAGES: &str = "procps,python3,gcc,libc6-dev,make,git,perl,golang-go,ca-certificates,strace";

/// The folder of the finished root; makes it first where it is missing.
///
/// # Errors
/// When debootstrap fails.
pub(crate) fn ensure(refresh: bool) -> Result<PathBuf> {
    let home = run::target("rootfs")?;
    let done = home.join(SUITE);
    if refresh && done.exists() {
        std::fs::remove_dir_all(&done)?;
    }
    let list = home.join(format!("{SUITE}.packages"));
    if done.exists() {
        if std::fs::read_to_string(&list).is_ok_and(|made| made == PACKAGES) {
            return Ok(done);
        }
        complete(&done)?;
        std::fs::write(&list, PACKAGES)?;
        return Ok(done);
    }
    apt::ensure(&["debootstrap"])?;
    let mirror = mirror().context("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d")?;
    let building = home.join(run::unique(SUITE));
    println!("  debootstrap {SUITE} from {mirror} (some minutes, once)");
    let log = home.join("debootstrap.log");
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&building).arg(&mirror);
    command.stdout(std::fs::File::create(&log)?).stderr(std::fs::File::create(&log)?);
    let status = command.status().context("start debootstrap")?;
    if !status.success() {
        bail!("debootstrap failed, see {} and what remains in {}", log.display(), building.display());
    }
    for archive in std::fs::read_dir(building.join("var/cache/apt/archives"))?.flatten() {
        if archive.path().extension().is_some_and(|e| e == "deb") {
            std::fs::remove_file(archive.path())?;
        }
    }
    // Only a finished root has the final name.
    std::fs::rename(&building, &done)?;
    std::fs::write(&list, PACKAGES)?;
    Ok(done)
}

/// Adds what a root lacks that was made with another list.
fn complete(root: &Path) -> Result<()> {
    println!("  adding packages to {} (half a minute, once)", root.display());
    let packages = PACKAGES.replace(',', " ");
    let script = format!(
        "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install {packages} \
         && apt-get clean && rm -rf /var/lib/apt/lists/*"
    );
    let mut command = Command::new("chroot");
    command.arg(root).args(["sh", "-c", &script]);
    run::check(&mut command)
}

/// The first Debian mirror that this machine's apt is configured with.
fn mirror() -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    texts.iter().flat_map(|text| text.lines()).find_map(mirror_of_line)
}

/// The mirror a line of sources.list, or a `URIs:` line, names; the security and third-party archives are not one.
fn mirror_of_line(line: &str) -> Option<String> {
    let line = line.trim();
    if !(line.starts_with("deb ") || line.starts_with("URIs:")) {
        return None;
    }
    let url = line.split_whitespace().find(|word| word.starts_with("http"))?;
    let url = url.trim_end_matches('/');
    url.ends_with("/debian").then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::mirror_of_line;

    #[test]
    fn finds_the_mirror_in_both_formats() {
        let found = Some("http://mirror.example/debian".to_owned());
        assert_eq!(mirror_of_line("deb [arch=amd64] http://mirror.example/debian bookworm main"), found);
        assert_eq!(mirror_of_line("URIs: http://mirror.example/debian/"), found);
        assert_eq!(mirror_of_line("URIs: http://mirror.example/debian-security"), None);
        assert_eq!(mirror_of_line("# deb http://mirror.example/debian bookworm main"), None);
    }
}
