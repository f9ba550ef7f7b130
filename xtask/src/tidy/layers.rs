//! Dependencies: strictly downward between our crates, and only those that a manifest allows from outside.

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

fn packages() -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .expect("cargo metadata runs");
    let all: Value = serde_json::from_slice(&out.stdout).expect("metadata is JSON");
    all["packages"].as_array().expect("metadata lists packages").clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("a package has a name")
}

#[test]
fn edges_go_strictly_down_and_out_only_where_allowed() {
    let packages = packages();
    let level: BTreeMap<&str, i64> = packages
        .iter()
        .map(|p| (name(p), p["metadata"]["layer"]["level"].as_i64().expect("each manifest states its level")))
        .collect();
    let mut bad = Vec::new();
    for package in &packages {
        let from = name(package);
        let allow = package["metadata"]["layer"]["allow"].as_array().cloned().unwrap_or_default();
        for dependency in package["dependencies"].as_array().expect("a list") {
            let to = name(dependency);
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            match level.get(to) {
                Some(lower) if *lower >= level[from] => {
                    bad.push(format!("{from} -> {to}: not strictly down"));
                }
                None if !allow.iter().any(|a| a.as_str() == Some(to)) => {
                    bad.push(format!("{from} -> {to}: not in [package.metadata.layer] allow"));
                }
                _ => {}
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
