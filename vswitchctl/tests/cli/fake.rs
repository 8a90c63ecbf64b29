//! A daemon with one fixed state, on a Unix socket in a scratch folder: what `vswitchctl` prints depends on nothing
//! else.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;

/// A request as it came: method, path with query, body.
pub(crate) type Seen = (String, String, String);

/// What is answered, `(status, body)`, to a method and a path with query.
pub(crate) type Answer = fn(&str, &str) -> (u16, Vec<u8>);

/// The daemon; it answers as long as the test's process lives.
pub(crate) struct Fake {
    folder: TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Starts a daemon with these answers.
    pub(crate) fn start(answer: Answer) -> io::Result<Self> {
        let folder = TempDir::new()?;
        let listener = UnixListener::bind(folder.path().join("socket"))?;
        listener.set_nonblocking(true)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(serve(listener, answer, log)));
        Ok(Self { folder, seen })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn serve(listener: UnixListener, answer: Answer, log: Arc<Mutex<Vec<Seen>>>) {
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| async {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let body = request.into_body().collect().await?.to_bytes();
            let (status, text) = answer(&method, &uri);
            log.lock().unwrap().push((method, uri, String::from_utf8_lossy(&body).into_owned()));
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status.try_into().unwrap();
            Ok::<_, hyper::Error>(response)
        });
        // The client may go before it has read all; that is its right.
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}
