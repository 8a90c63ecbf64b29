//! Holds the arrows between the crates, and where unsafe code may be.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace each crate may need at run time. A crate that is not here may not be.
const ARROWS: [(&str, &[&str]); 11] = [
    ("vswitch-wire", &[]),
    ("vswitch-dataplane", &["vswitch-wire"]),
    ("vswitch-io", &["vswitch-wire"]),
    ("vswitch-protocols", &["vswitch-wire"]),
    ("vswitch-api", &["vswitch-wire"]),
    ("vswitch-netns", &[]),
    ("vswitch", &["vswitch-api", "vswitch-dataplane", "vswitch-io", "vswitch-protocols", "vswitch-wire"]),
    ("vswitchctl", &["vswitch-api", "vswitch-netns", "vswitch-wire"]),
    ("vswitch-tests", &["vswitch-api", "vswitch-netns", "vswitch-wire"]),
    (
        "vswitch-benches",
        &["vswitch-api", "vswitch-dataplane", "vswitch-io", "vswitch-netns", "vswitch-tests", "vswitch-wire"],
    ),
    ("xtask", &["vswitch-api", "vswitch-netns"]),
];

/// Crates without a standard library: no clock, no file, no socket can get in.
const PURE: [&str; 3] = ["crates/wire", "crates/dataplane", "crates/protocols"];

/// Where unsafe code may be.
const UNSAFE: [&str; 3] = ["crates/io/", "crates/netns/", "crates/dataplane/src/table.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The crates of the workspace, each with those of them that it needs at run time.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            // `kind` is null for what is needed at run time; a `path` makes it one of ours.
            let ours = dependencies.filter(|dep| dep["kind"].is_null() && dep["path"].is_string());
            let names = ours.map(|dep| dep["name"].as_str().unwrap().to_owned()).collect();
            (package["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != ".git") {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_need_only_what_the_architecture_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, needs)| (*name, needs.iter().copied().collect())).collect();
    for (name, needs) in dependencies() {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} has no place yet"));
        let wrong: Vec<&String> = needs.iter().filter(|needed| !allowed.contains(needed.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn pure_crates_have_no_standard_library() {
    for folder in PURE {
        let text = fs::read_to_string(root().join(folder).join("src/lib.rs")).unwrap();
        assert!(text.lines().any(|line| line == "#![no_std]"), "{folder} must be no_std");
    }
}

#[test]
fn unsafe_code_stays_where_it_belongs() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 20, "the workspace is found");
    for file in files {
        let path = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let is_shipped = path.contains("src/");
        if is_shipped && !UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
            let lifts = |line: &str| line.trim_start().starts_with("#") && line.contains("allow(unsafe_code");
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.lines().any(lifts), "{path} must do without unsafe code");
        }
    }
}
