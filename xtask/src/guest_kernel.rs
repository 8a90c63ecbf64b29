//! A kernel for guests of QEMU: Debian's for clouds, which is small and boots fast. It is unpacked and not installed,
//! since this machine is not to boot it.

use std::fs;

use crate::packages;
use crate::{Result, shell};

/// Stands for the newest one.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Unpacks it where the tests find it, all or nothing: the folder gets its name when it is complete.
pub(crate) async fn provide() -> Result<()> {
    let folder = shell::root().join("target/guest-kernel");
    if folder.exists() {
        return Ok(());
    }
    shell::title("Unpacking a kernel for guests");
    println!("{PACKAGE}, to have guests of QEMU; it is not installed, but goes to {}", folder.display());
    let unpacked = folder.with_extension("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    packages::unpack_what_stands_behind(PACKAGE, &unpacked).await?;
    Ok(fs::rename(unpacked, folder)?)
}
