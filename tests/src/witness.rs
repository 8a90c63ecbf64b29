//! What a killed program must not leave behind.

use std::fs;
use std::path::PathBuf;

use vswitch_netns::{Namespace, Scratch};

use crate::wait::{SOON, wait_until};

/// Knows how things were before, and a program with all its descendants, wherever they are, by the temporary folder
/// that it gives them.
#[derive(Debug)]
pub struct Witness {
    folder: Scratch,
    before: Surroundings,
}

/// Links and named namespaces of the caller's own namespace, and mounts.
type Surroundings = [String; 3];

impl Witness {
    /// Looks at how things are.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no value, but a look at the machine")]
    pub fn new() -> Self {
        Self { folder: Scratch::new().expect("a folder in memory (this needs root)"), before: surroundings() }
    }

    /// What `TMPDIR` has to be in the program's environment.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path()
    }

    /// Ids of the program and its descendants.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let wanted = format!("TMPDIR={}", self.folder().display());
        let has_it = |pid: &u32| {
            // One that has ended meanwhile has nothing.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_it).collect()
    }

    /// Holds that soon nothing is left.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn expect_nothing_left(self) {
        wait_until("all processes have ended", SOON, || self.processes().is_empty());
        assert_eq!(surroundings(), self.before);
        let left: Vec<_> = fs::read_dir(self.folder()).expect("the folder is there").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn surroundings() -> Surroundings {
    let here = Namespace::current().expect("the namespace of the tests");
    let ip = |args: &[&str]| here.run("ip", args).expect("ip succeeds");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    [ip(&["-brief", "link"]), ip(&["netns"]), mounts]
}
