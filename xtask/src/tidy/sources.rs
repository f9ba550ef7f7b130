//! Source files: size, unsafe code where the table allows it, no unfinished work, the workspace's lints.

use std::path::{Path, PathBuf};

/// Crates that may contain unsafe code (design §2), and the guests, which call libc directly.
const UNSAFE: [&str; 4] = ["platform", "memmap", "sandbox", "conformance"];

fn crates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(crate::run::workspace())
        .expect("the workspace can be read")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    found.sort();
    assert!(found.len() >= 15, "only {} crates found", found.len());
    found
}

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            found.push((path, text));
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for krate in crates() {
        for sub in ["src", "tests", "benches", "examples"] {
            sources(&krate.join(sub), &mut found);
        }
    }
    found
}

#[test]
fn no_file_has_more_than_800_lines() {
    let long: Vec<_> =
        all().into_iter().filter(|(_, text)| text.lines().count() > 800).map(|(p, _)| p).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_unfinished_work_and_no_ignored_test() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let ignore = ["#[", "ignore"].concat();
    let mut bad = Vec::new();
    for (path, text) in all() {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//")
                && (words.iter().any(|w| code.contains(w.as_str())) || code.contains(&ignore))
            {
                bad.push(format!("{}:{}: {}", path.display(), number + 1, code));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn unsafe_code_is_forbidden_where_the_table_says_so() {
    let mut bad = Vec::new();
    for krate in crates() {
        let name = krate.file_name().expect("a folder").to_string_lossy().into_owned();
        for root in ["src/lib.rs", "src/main.rs"] {
            if let Ok(text) = std::fs::read_to_string(krate.join(root))
                && !UNSAFE.contains(&name.as_str())
                && !text.contains("#![forbid(unsafe_code)]")
            {
                bad.push(format!("{name}/{root}"));
            }
        }
    }
    assert!(bad.is_empty(), "no #![forbid(unsafe_code)]: {bad:?}");
}

#[test]
fn every_crate_inherits_the_lints() {
    for krate in crates() {
        let manifest = std::fs::read_to_string(krate.join("Cargo.toml")).expect("a manifest");
        let inherits = manifest.contains("[lints]\nworkspace = true");
        // The guests call libc with wrong arguments on purpose; their manifest says which lints hold. Fuzz targets are a
        // workspace of their own.
        let apart = krate.ends_with("conformance") || manifest.contains("\n[workspace]\n");
        assert!(inherits || apart, "{} does not inherit the lints", krate.display());
    }
}
