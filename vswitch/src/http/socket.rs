//! The Unix socket: made for its owner and group alone, taken over from a daemon that died, never from one that lives.
//! Its clients are bounded: in number, and in how long they may keep a connection without a byte.

use std::io::{self, IoSlice};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use nix::sys::stat::{Mode, umask};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::net::unix::{SocketAddr, UCred};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

/// Clients served at a time; others wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a client may take for its next byte, or to read ours. The longest change must fit in.
const SILENCE: Duration = Duration::from_secs(60);

/// The API's socket; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    free: Arc<Semaphore>,
}

/// A client.
pub struct Connection {
    stream: Pin<Box<TimeoutStream<tokio::net::UnixStream>>>,
    peer: Peer,
    _place: Option<OwnedSemaphorePermit>,
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
        Ok(Self { listener: listener?, path: path.to_owned(), free: Arc::new(Semaphore::new(CONNECTIONS)) })
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
        stream.io().peer
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
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed, so there always is a place in the end.
        let place = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let peer = Peer(stream.peer_cred().ok());
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(SILENCE));
        stream.set_write_timeout(Some(SILENCE));
        (Connection { stream: Box::pin(stream), peer, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::pin::pin;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves `GET /` on a new socket, in this test's own paused time.
    fn serve(folder: &Path) -> PathBuf {
        let path = folder.join("socket");
        let socket = Socket::bind(&path).unwrap();
        let router = Router::new().route("/", get(async || "here"));
        tokio::spawn(axum::serve(socket, router.into_make_service_with_connect_info::<Peer>()).into_future());
        path
    }

    async fn ask(client: &mut tokio::net::UnixStream) -> String {
        client.write_all(b"GET / HTTP/1.1\r\nhost: vswitch\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = serve(folder.path());
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        client.write_all(b"GET / HT").await.unwrap();
        let since = tokio::time::Instant::now();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert!(since.elapsed() >= SILENCE);
    }

    #[tokio::test]
    async fn more_clients_than_places_wait_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = serve(folder.path());
        let mut inside = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
            // Its place is taken once it was answered; it stays, with its next request half said.
            client.write_all(b"GET / HTTP/1.1\r\nhost: vswitch\r\n\r\nGET").await.unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).await.unwrap();
            inside.push(client);
        }
        let mut late = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut asked = pin!(ask(&mut late));
        tokio::select! {
            biased;
            answer = &mut asked => panic!("{answer}"),
            () = async { for _ in 0..1000 { tokio::task::yield_now().await } } => {}
        }
        inside.pop();
        assert!(asked.await.ends_with("here"));
    }
}
