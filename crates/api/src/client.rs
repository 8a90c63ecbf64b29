//! The client of the API: one request, one answer, over the Unix socket.
//!
//! Each request has a connection of its own, so there is no state to keep and no other request to wait
//! for. An answer has [`ANSWER_MAX`] to come and at most [`paths::BODY_MAX`] bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::paths;
use crate::response::ErrorBody;

/// How long an answer may take: longer than the slowest `apply` of 4096 ports.
pub const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Why there is no answer, or one that is no success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers at the socket.
    #[error("the daemon cannot be reached at {}: {source}; start it with `vswitch`, or name its socket with --socket", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What connecting to it gave.
        source: io::Error,
    },
    /// The daemon refused, and nothing has changed.
    #[error("{}", in_one_line(.0))]
    Refused(ErrorBody),
    /// What answers does not speak this API, or broke off.
    #[error("the daemon at {} gave no answer that can be read: {why}; see that it has the version of this program", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        why: String,
    },
}

fn in_one_line(body: &ErrorBody) -> String {
    match body.mend.as_str() {
        "" => body.message.clone(),
        mend => format!("{}; {mend}", body.message),
    }
}

/// Where the daemon is.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon behind this socket. Connects to nothing yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get<A: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<A, Error> {
        self.send(Method::GET, path, query, Bytes::new()).await
    }

    /// DELETE with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete<A: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<A, Error> {
        self.send(Method::DELETE, path, query, Bytes::new()).await
    }

    /// POST of a JSON body, with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<A, Error> {
        self.send(Method::POST, path, query, self.json(body)?).await
    }

    /// PUT of a JSON body, with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put<A: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<A, Error> {
        self.send(Method::PUT, path, query, self.json(body)?).await
    }

    /// PATCH with a JSON merge patch, with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch<A: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<A, Error> {
        self.send(Method::PATCH, path, query, self.json(body)?).await
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, Error> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|e| self.protocol(e))
    }

    fn protocol(&self, why: impl ToString) -> Error {
        Error::Protocol { socket: self.socket.clone(), why: why.to_string() }
    }

    async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &impl Serialize,
        body: Bytes,
    ) -> Result<A, Error> {
        let query = serde_urlencoded::to_string(query).map_err(|e| self.protocol(e))?;
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "vswitch") // RFC 9112 section 3.2 wants one; a Unix socket has none
            .header(CONTENT_TYPE, paths::JSON)
            .body(Full::new(body))
            .map_err(|e| self.protocol(e))?;
        let exchange = tokio::time::timeout(ANSWER_MAX, self.exchange(request)).await;
        exchange.map_err(|_| self.protocol(format!("nothing came for {} s", ANSWER_MAX.as_secs())))?
    }

    async fn exchange<A: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<A, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Unreachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.protocol(e))?;
        let conversation = async {
            let response = sender.send_request(request).await.map_err(|e| self.protocol(e))?;
            self.read(response).await
        };
        // The connection has to be polled for the conversation to go on; its own error shows there too.
        let mut conversation = std::pin::pin!(conversation);
        tokio::select! {
            answer = &mut conversation => answer,
            _ = connection => conversation.await,
        }
    }

    async fn read<A: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<A, Error> {
        let status = response.status();
        let body = Limited::new(response.into_body(), paths::BODY_MAX).collect().await;
        let body = body.map_err(|e| match e.is::<LengthLimitError>() {
            true => self.protocol(format!("it is larger than {} bytes", paths::BODY_MAX)),
            false => self.protocol(e),
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| self.protocol(e));
        }
        match serde_json::from_slice(&body) {
            Ok(refusal) => Err(Error::Refused(refusal)),
            Err(_) => Err(self.protocol(format!("HTTP status {status}"))),
        }
    }
}
