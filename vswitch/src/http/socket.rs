//! The Unix socket: made for its owner and group alone, taken over from a daemon that died, never from one that lives.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;
use tokio::net::unix::SocketAddr;

/// The API's socket; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds `path` with mode 0660.
    ///
    /// # Errors
    /// Another daemon answers there, or what the kernel said.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket"));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another vswitch answers there"));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        // The mode must be right from the first moment on, so it is the umask that sets it.
        let before = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(path);
        umask(before);
        Ok(Self { listener: listener?, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for Socket {
    type Io = tokio::net::UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Ok(peer) = stream.peer_cred() {
            tracing::debug!(uid = peer.uid(), gid = peer.gid(), pid = peer.pid(), "a client has connected");
        }
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
