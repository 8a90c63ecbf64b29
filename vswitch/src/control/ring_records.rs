//! The folder of what is written down of guests' packed rings: beside the API's socket, with a file for each socket of a
//! guest's port. It outlives the daemon, however that ends, so that guests get their traffic back from the next one.
//! When a daemon ends in order, the files of sockets go that no port has then.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use vswitch_api::paths;

/// Nobody but the owner may write there, or look.
const MODE: u32 = 0o700;

/// The folder, which is made when it is first needed.
pub struct RingRecords(PathBuf);

impl RingRecords {
    /// That of the daemon with this API socket, of which there is one.
    pub fn beside(socket: &Path) -> Self {
        let mut name = socket.as_os_str().to_owned();
        name.push(".rings");
        Self(name.into())
    }

    /// The file for the rings behind this socket.
    ///
    /// # Errors
    /// The folder cannot be made, or somebody else may write to it.
    pub(super) fn file(&self, socket: &Path) -> io::Result<PathBuf> {
        match DirBuilder::new().mode(MODE).create(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        self.open()?;
        Ok(self.0.join(Self::name(socket)))
    }

    /// The folder, if nobody else may write to it.
    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
        let text = || format!("{} is no folder of this daemon's alone", self.0.display());
        let others = || io::Error::new(io::ErrorKind::PermissionDenied, text());
        let folder = options.open(&self.0).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => others(),
            _ => e,
        })?;
        let metadata = folder.metadata()?;
        let is_ours = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o22 == 0;
        if is_ours { Ok(folder) } else { Err(others()) }
    }

    /// No two sockets have the same, and it is one segment of a path.
    fn name(socket: &Path) -> OsString {
        format!("{}.ring", paths::segment(&socket.to_string_lossy())).into()
    }

    /// Removes the files of all sockets but these.
    pub(super) fn keep<'a>(&self, sockets: impl Iterator<Item = &'a Path>) {
        let Ok(folder) = self.open() else { return }; // it was never needed, or is not ours
        // By the folder that was looked at, whatever has its name by now.
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())) else { return };
        let kept: BTreeSet<OsString> = sockets.map(Self::name).collect();
        for entry in entries.flatten().filter(|entry| !kept.contains(&entry.file_name())) {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!(file = %entry.path().display(), %error, "cannot be removed");
            }
        }
    }
}

impl Drop for RingRecords {
    /// Where there is nothing in it.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn each_socket_has_a_file_of_its_own_within_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let records = RingRecords::beside(&folder.path().join("api"));
        let sockets = ["/a/b", "/a%2Fb", "a/b", "..", ".", "../../a", "/é", ""].map(Path::new);
        let files: BTreeSet<PathBuf> = sockets.iter().map(|socket| records.file(socket).unwrap()).collect();
        assert_eq!(files.len(), sockets.len());
        assert!(files.iter().all(|file| file.parent() == Some(&folder.path().join("api.rings"))));
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        records.keep([sockets[0], Path::new("/other")].into_iter());
        assert_eq!(files.iter().filter(|file| file.exists()).count(), 1);
        assert!(records.file(sockets[0]).unwrap().exists());
        records.keep([].into_iter());
        drop(records);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_removed_from_a_folder_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let records = RingRecords::beside(&folder.path().join("api"));
        let theirs = folder.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("precious"), "").unwrap();
        symlink("theirs", folder.path().join("api.rings")).unwrap();
        records.keep([].into_iter());
        assert!(theirs.join("precious").exists());
    }

    #[test]
    fn a_folder_of_others_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let records = RingRecords::beside(&folder.path().join("api"));
        fs::create_dir(folder.path().join("theirs")).unwrap();
        symlink("theirs", folder.path().join("api.rings")).unwrap();
        assert!(records.file(Path::new("/a")).is_err());
        fs::remove_file(folder.path().join("api.rings")).unwrap();
        fs::create_dir(folder.path().join("api.rings")).unwrap();
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(folder.path().join("api.rings"), open).unwrap();
        assert!(records.file(Path::new("/a")).is_err());
    }
}
