//! Payload between two hosts, compared byte by byte. The hosts' own stacks carry it, with the kernel's default
//! settings: what they leave to devices (checksums, segmentation) the switch has to get right.

#![allow(clippy::disallowed_methods)] // deadlines of tests are in real time

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Instant;

use crate::Host;
use crate::wait::SOON;

/// Sends `len` bytes by TCP to `to`, at its address `address`.
///
/// # Panics
/// When they do not arrive as they were sent.
#[track_caller]
pub fn tcp(from: &Host, to: &Host, address: &str, len: usize) {
    let what = format!("TCP from {} to {} at {address}", from.name, to.name);
    let at = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), 0);
    let listener = to.namespace.enter(|| TcpListener::bind(at)).expect(&what).expect(&what);
    let at = listener.local_addr().expect(&what);
    let sent = payload(len);
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (stream, _) = listener.accept()?;
            receive(stream, len)
        });
        let connected = from.namespace.enter(|| TcpStream::connect_timeout(&at, SOON)).expect(&what);
        let mut stream = match connected {
            Ok(stream) => stream,
            // The receiver waits for a connection that never comes: do not wait for it.
            Err(error) => {
                drop(to.namespace.enter(|| TcpStream::connect(at)));
                panic!("{what}: connect: {error}");
            }
        };
        stream.set_write_timeout(Some(SOON)).expect(&what);
        stream.write_all(&sent).unwrap_or_else(|error| panic!("{what}: send: {error}"));
        drop(stream);
        receiver.join().expect(&what)
    });
    let received = received.unwrap_or_else(|error| panic!("{what}: receive: {error}"));
    assert!(received == sent, "{what}: {} bytes sent, {} received, not the same", len, received.len());
}

/// Sends datagrams of these sizes by UDP to `to`, at its address `address`, each when the one before has come.
///
/// # Panics
/// When one does not arrive as it was sent.
#[track_caller]
pub fn udp(from: &Host, to: &Host, address: &str, sizes: &[usize]) {
    let what = format!("UDP from {} to {} at {address}", from.name, to.name);
    let to_ip: IpAddr = address.parse().expect("an address");
    let any: IpAddr = if to_ip.is_ipv4() { [0_u8; 4].into() } else { [0_u8; 16].into() };
    let bind =
        |host: &Host, ip| host.namespace.enter(|| UdpSocket::bind((ip, 0))).expect(&what).expect(&what);
    let (sender, receiver) = (bind(from, any), bind(to, to_ip));
    sender.connect(receiver.local_addr().expect(&what)).expect(&what);
    receiver.set_read_timeout(Some(SOON)).expect(&what);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for &size in sizes {
        let sent = payload(size);
        sender.send(&sent).unwrap_or_else(|error| panic!("{what}: {size} bytes: {error}"));
        let len = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {size} bytes: {error}"));
        assert!(buffer[..len] == sent, "{what}: {size} bytes sent, {len} received, not the same");
    }
}

/// Everything up to the sender's end. All of it has to come soon: TCP gets through in the end, segment by segment,
/// where every large frame is lost.
fn receive(mut stream: TcpStream, len: usize) -> io::Result<Vec<u8>> {
    let end = Instant::now() + SOON;
    let (mut received, mut buffer) = (Vec::with_capacity(len), vec![0; 1 << 16]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} bytes in {SOON:?}", received.len()),
            ));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Bytes without a pattern that a wrong offset could hide in (xorshift64, Marsaglia 2003).
#[must_use]
pub fn payload(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
