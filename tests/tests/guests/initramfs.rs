//! The first and only file system of a guest of QEMU, in memory (initramfs): this program, a few others with their
//! libraries, and the drivers of the guest's kernel.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agent::{MODULES, PATH};

/// What the tests have run in guests.
const PROGRAMS: [&str; 5] = ["cat", "ethtool", "ip", "ping", "stty"];
/// Where the guest's kernel finds the drivers.
pub(crate) const DRIVERS: &str = "/lib/modules";

/// Kernel and initramfs, as QEMU takes them.
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Boot {
    /// Makes them in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest-kernel");
        let releases = fs::read_dir(unpacked.join("lib/modules"));
        let releases = releases.unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo xtask test` puts a kernel for guests there", unpacked.display())
        });
        let release = releases.flatten().next().expect("a kernel's modules").file_name();
        let release = release.to_str().expect("a release");
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, archive(&unpacked, release, folder)).expect("the initramfs is written");
        Self { kernel: unpacked.join("boot").join(format!("vmlinuz-{release}")), initramfs }
    }
}

fn archive(unpacked: &Path, release: &str, folder: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    // The kernel opens the console for its first process; the numbers are in its Documentation/admin-guide/devices.txt.
    archive.device("dev/console", 5, 1);
    archive.device("dev/ttyS0", 4, 64);
    archive.device("dev/null", 1, 3);
    archive.folder("proc");
    archive.folder("sys");
    for module in MODULES {
        let path = format!("lib/modules/{release}/kernel/{module}");
        archive.file(&path, &read(&unpacked.join(&path)));
    }
    let this = env::current_exe().expect("the path of the test program");
    let init = folder.join("init");
    run(Command::new("strip").arg("-o").arg(&init).arg(&this));
    archive.file("init", &read(&init));
    let programs = PROGRAMS.map(find);
    for program in &programs {
        archive.file(&format!("usr/bin/{}", name(program)), &read(program));
    }
    let mut libraries: Vec<String> =
        programs.iter().chain([&this]).flat_map(|program| libraries(program)).collect();
    libraries.sort();
    libraries.dedup();
    for library in libraries {
        archive.file(library.trim_start_matches('/'), &read(library.as_ref()));
    }
    archive.end()
}

fn find(program: &str) -> PathBuf {
    let places = PATH.split(':').map(|folder| Path::new(folder).join(program));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("there is no {program}"))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Paths of the libraries that a program is linked with, its loader among them (ldd(1)).
fn libraries(program: &Path) -> Vec<String> {
    let shown = run(Command::new("ldd").arg(program));
    shown.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A cpio archive of the kind that Linux unpacks (its Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

/// stat(2), `S_IFDIR`, `S_IFCHR` and `S_IFREG`, with permissions.
const FOLDER: u32 = 0o040_755;
const DEVICE: u32 = 0o020_600;
const FILE: u32 = 0o100_755;

impl Archive {
    /// A file, in folders that are made first.
    fn file(&mut self, path: &str, content: &[u8]) {
        self.folders_of(path);
        self.entry(path, FILE, content, (0, 0));
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.folders_of(path);
        self.entry(path, DEVICE, &[], (major, minor));
    }

    fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.folders_of(path);
            self.entry(path, FOLDER, &[], (0, 0));
        }
    }

    fn folders_of(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        let len = u32::try_from(content.len()).expect("the file is small");
        let name_len = u32::try_from(path.len() + 1).expect("the path is short");
        // Magic, then inode, mode, owner, group, links, time, size, device of the file system, own device, length of
        // the name, checksum (none).
        let fields = [self.entries, mode, 0, 0, 1, 0, len, 0, 0, major, minor, name_len, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.bytes.extend(format!("070701{fields}{path}\0").bytes());
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }
}
