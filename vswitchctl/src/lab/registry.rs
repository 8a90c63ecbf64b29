//! Which labs are up: one socket under `/run/vswitch-lab` for each holder, named after its process id.
//!
//! A holder that answers is up; a socket that nobody answers on is what a killed holder has left, and is
//! removed by whoever meets it. So there is no state that could be wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const FOLDER: &str = "/run/vswitch-lab";
/// The one request, a line; a client without it wants the description alone.
const END: &str = "end";
/// A holder or client that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What asking a lab gives when it is not there any more.
const IS_GONE: [ErrorKind; 6] = [
    ErrorKind::NotFound,
    ErrorKind::UnexpectedEof,
    ErrorKind::ConnectionReset,
    ErrorKind::BrokenPipe,
    ErrorKind::WouldBlock,
    ErrorKind::TimedOut,
];

/// A lab that is up, as its holder describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lab {
    /// The topology file.
    pub(crate) file: PathBuf,
    /// Process id of the holder.
    pub(crate) pid: u32,
    /// Inode of the network namespace that the near ends of the veths are in.
    pub(crate) switch_netns: u64,
    /// The hosts, in the file's order.
    pub(crate) hosts: Vec<LabHost>,
}

/// A host of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabHost {
    /// Its name.
    pub(crate) name: String,
    /// The port that it is connected to.
    pub(crate) port: String,
    /// The near end of its veth; the far end is `eth0` in the host.
    pub(crate) netdev: String,
    /// Addresses of its `eth0`, with prefix lengths.
    pub(crate) address: Vec<String>,
    /// Path to its network namespace, for setns(2) and `nsenter --net=`.
    pub(crate) netns: String,
    /// The command that it runs.
    pub(crate) run: Option<String>,
    /// How that command ended, if it has.
    pub(crate) run_ended: Option<String>,
}

impl LabHost {
    /// The command and its fate, for a table.
    pub(crate) fn run_text(&self) -> String {
        match (&self.run, &self.run_ended) {
            (Some(run), Some(ended)) => format!("{run} (ended: {ended})"),
            (Some(run), None) => run.clone(),
            (None, _) => String::new(),
        }
    }
}

/// All labs that are up, the oldest process id first.
pub(crate) fn labs() -> Result<Vec<Lab>, Failure> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused("read", Path::new(FOLDER), &error)),
    };
    let mut labs = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| refused("read", Path::new(FOLDER), &error))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        match describe(&path) {
            Ok(lab) => labs.push(lab),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                remove(&path)?;
                remove_folder();
            }
            // It went down between listing and asking, or has stopped to answer.
            Err(error) if IS_GONE.contains(&error.kind()) => {}
            Err(error) => return Err(refused("ask the lab at", &path, &error)),
        }
    }
    labs.sort_by_key(|lab| lab.pid);
    Ok(labs)
}

/// Ends the lab of this holder and waits until its links are gone.
pub(crate) fn end(pid: u32) -> Result<(), Failure> {
    let path = socket_of(pid);
    let ask = || {
        let mut stream = connect(&path)?;
        writeln!(stream, "{END}")?;
        // The description, and then nothing until the holder has ended.
        stream.read_to_end(&mut Vec::new())
    };
    ask().map(drop).map_err(|error| refused("end the lab at", &path, &error))
}

/// The holder's side: its socket, removed when the lab ends in order.
pub(crate) struct Endpoint {
    listener: UnixListener,
    path: PathBuf,
}

/// What a client wants; [`Request::End`] carries the connection, whose end is the answer.
pub(crate) enum Request {
    /// Nothing more than the description.
    Describe,
    /// The end of the lab.
    End(UnixStream),
}

impl Endpoint {
    /// Makes this process known as the holder of a lab.
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = Path::new(FOLDER);
        let path = socket_of(std::process::id());
        // Shown under its name only when it listens: one that refuses is taken for a dead one. What is
        // there already has been left by a killed holder with our process id.
        let unseen = folder.join(format!(".{}", std::process::id()));
        let listener = loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(|error| refused("create", folder, &error))?;
            remove(&unseen)?;
            match UnixListener::bind(&unseen) {
                // The last lab has ended just now, and has taken the folder along.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                bound => break bound.map_err(|error| refused("listen on", &unseen, &error))?,
            }
        };
        fs::rename(&unseen, &path).map_err(|error| refused("create", &path, &error))?;
        Ok(Self { listener, path })
    }

    /// Waits for the next client.
    pub(crate) fn accept(&self) -> Result<UnixStream, Failure> {
        let accepted = self.listener.accept().map_err(|error| refused("accept on", &self.path, &error))?;
        Ok(accepted.0)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // What is left is removed by the next command that meets it.
        let _ = fs::remove_file(&self.path);
        remove_folder();
    }
}

/// The holder's side: tells a client what the lab is, and returns what the client wants.
pub(crate) fn serve(mut client: UnixStream, lab: &Lab) -> io::Result<Request> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    serde_json::to_writer(&mut client, lab)?;
    client.write_all(b"\n")?;
    let mut line = String::new();
    BufReader::new((&client).take(64)).read_line(&mut line)?;
    Ok(if line.trim_end() == END { Request::End(client) } else { Request::Describe })
}

fn describe(path: &Path) -> io::Result<Lab> {
    let stream = connect(path)?;
    stream.shutdown(Shutdown::Write)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn socket_of(pid: u32) -> PathBuf {
    Path::new(FOLDER).join(pid.to_string())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(refused("remove", path, &error)),
        _ => Ok(()),
    }
}

/// The last lab takes the folder along.
fn remove_folder() {
    // Fails while there is another lab.
    let _ = fs::remove_dir(FOLDER);
}

fn refused(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!("cannot {what} {}: {error}", path.display()))
}
