//! The Unix socket: made for its owner and group alone, taken over from a daemon that died, never from one that lives.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;
use tokio::net::unix::{SocketAddr, UCred};

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

/// Who is at the other end of a connection, as the kernel knows it (SO_PEERCRED).
#[derive(Clone, Copy, Debug)]
pub struct Peer(Option<UCred>);

impl Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        Self(stream.io().peer_cred().ok())
    }
}

/// Logs who asks for a change.
pub async fn log_changes(
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if method != Method::GET {
        let (uid, pid) = (peer.map(|p| p.uid()), peer.and_then(|p| p.pid()));
        tracing::info!(?uid, ?pid, %method, path, status = response.status().as_u16(), "request");
    }
    response
}

impl Listener for Socket {
    type Io = tokio::net::UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
