//! Mount options of tmpfs.
use abi::Errno;

use super::ROOT_MODE;

/// The size of an instance that is not told another.
const DEFAULT_SIZE: u64 = 4 << 30;
/// The number of inodes of an instance that is not told another.
const DEFAULT_INODES: u64 = 1 << 20;

/// The mount options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most bytes of files; 0 for any number.
    pub size: u64,
    /// The most inodes; 0 for any number.
    pub nr_inodes: u64,
    /// Permissions of the root directory.
    pub mode: u32,
    /// Owner of the root directory; the caller where `None`.
    pub uid: Option<u32>,
    /// Group of the root directory; the caller's where `None`.
    pub gid: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { size: DEFAULT_SIZE, nr_inodes: DEFAULT_INODES, mode: ROOT_MODE & 0o7777, uid: None, gid: None }
    }
}

/// A number with Linux's suffixes (`memparse`).
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl Options {
    /// Reads the options of mount(2) over `base`.
    ///
    /// # Errors
    /// `EINVAL` for an option or a value that tmpfs does not know.
    pub fn parse_over(base: &Self, data: &[u8]) -> Result<Self, Errno> {
        let text = std::str::from_utf8(data).or(Err(Errno::EINVAL))?;
        let mut options = base.clone();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            options.set(key, value).ok_or(Errno::EINVAL)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            // A percentage is one of the machine's memory; the default is half of it.
            "size" if value.ends_with('%') => {
                let percent: u64 = value.strip_suffix('%')?.parse().ok()?;
                self.size = (DEFAULT_SIZE / 50).checked_mul(percent)?;
            }
            "size" => self.size = parse_size(value)?,
            "nr_blocks" => self.size = parse_size(value)?.checked_mul(memmap::PAGE)?,
            "nr_inodes" => self.nr_inodes = parse_size(value)?,
            "mode" => self.mode = u32::from_str_radix(value, 8).ok()? & 0o7777,
            "uid" => self.uid = Some(value.parse().ok()?),
            "gid" => self.gid = Some(value.parse().ok()?),
            // Hints about large pages and inode numbers that need nothing done: both are as wide as they get.
            "huge" if matches!(value, "never" | "advise" | "within_size" | "always") => {}
            "inode64" | "noswap" => {}
            _ => return None,
        }
        Some(())
    }

    /// As `/proc/mounts` shows them.
    #[must_use]
    pub fn show(&self) -> Vec<u8> {
        let mut shown = Vec::new();
        if self.size != 0 {
            shown.push(format!("size={}k", self.size / 1024));
        }
        if self.nr_inodes != DEFAULT_INODES {
            shown.push(format!("nr_inodes={}", self.nr_inodes));
        }
        if self.mode != ROOT_MODE & 0o7777 {
            shown.push(format!("mode={:o}", self.mode));
        }
        shown.extend(self.uid.map(|uid| format!("uid={uid}")));
        shown.extend(self.gid.map(|gid| format!("gid={gid}")));
        shown.push("inode64".to_owned());
        shown.join(",").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let base = Options::default();
        let o = Options::parse_over(&base, b"size=64m,mode=755,nr_inodes=1k,uid=5").expect("good");
        assert_eq!((o.size, o.mode, o.nr_inodes, o.uid), (64 << 20, 0o755, 1024, Some(5)));
        assert_eq!(o.show(), b"size=65536k,nr_inodes=1024,mode=755,uid=5,inode64");
        for bad in ["size=x", "size=5q", "color=red", "mode=9", "size=99999999999t"] {
            assert_eq!(Options::parse_over(&base, bad.as_bytes()), Err(Errno::EINVAL), "{bad}");
        }
    }
}
