//! Huge pages, for as long as the benchmark runs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::Result;

/// How many there are to be, of the machine's default size.
const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// Pages that were added. When this is dropped, or this process ends in any other way, there are as many as before:
/// that is seen to by a process of its own, which nothing reaches that ends this one.
pub(crate) struct HugePages {
    keeper: Child,
    /// Open as long as they are needed.
    needed: Option<ChildStdin>,
}

impl HugePages {
    /// Adds so many MiB; `None` where the machine has no memory for all of them.
    pub(crate) fn add(mib: u32) -> Result<Option<Self>> {
        let Some(size_kib) = page_size_kib(&fs::read_to_string("/proc/meminfo")?) else { return Ok(None) };
        let before = count()?;
        let pages = Self::kept(before)?;
        let wanted = before + u64::from(mib).saturating_mul(1024).div_ceil(size_kib);
        // Where it may not be written, none come.
        let _ = fs::write(COUNT, wanted.to_string());
        Ok((count()? >= wanted).then_some(pages))
    }

    /// Starts the process that sees to it that there are `before` in the end.
    fn kept(before: u64) -> Result<Self> {
        let mut keeper = Command::new("sh");
        // It has its own group, so that no Ctrl-C reaches it.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.args(["-c", &format!("trap '' HUP INT TERM; read -r word; echo {before} >{COUNT}")]);
        let mut keeper = keeper.spawn()?;
        let needed = keeper.stdin.take();
        Ok(Self { keeper, needed })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        self.needed = None;
        let _ = self.keeper.wait(); // it is a child, and ends
    }
}

fn count() -> Result<u64> {
    Ok(fs::read_to_string(COUNT)?.trim().parse()?)
}

/// The default size; `None` where the kernel has no huge pages.
fn page_size_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_page_is_found() {
        assert_eq!(page_size_kib("Hugetlb: 0 kB\nHugepagesize:       2048 kB\n"), Some(2048));
        assert_eq!(page_size_kib("MemTotal: 1 kB\n"), None);
    }
}
