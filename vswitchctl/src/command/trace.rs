//! `trace`.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request;
use vswitch_api::response::{Outcome, TraceResult};

use super::render;
use crate::args::Trace;
use crate::failure::Failure;

/// The type of a section header block, with which a pcapng file begins (draft-ietf-opsawg-pcapng section 4.1).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

pub(crate) async fn run(client: &Client, trace: &Trace, json: bool) -> Result<String, Failure> {
    match (&trace.frame, &trace.pcap) {
        (Some(hex), _) => {
            let result = ask(client, &trace.port, digits(hex)?).await?;
            render(&result, json, text)
        }
        (None, Some(file)) => {
            let mut results = Vec::new();
            for frame in frames(file).map_err(|e| unreadable(file, &e))? {
                results.push(ask(client, &trace.port, to_hex(&frame)).await?);
            }
            render(&results, json, |results| numbered(results))
        }
        (None, None) => {
            Err(Failure::invalid("vswitchctl: no frame to trace; give --frame HEX or --pcap FILE"))
        }
    }
}

async fn ask(client: &Client, port: &str, frame: String) -> Result<TraceResult, Failure> {
    let request = request::Trace { port: port.to_owned(), frame };
    Ok(client.post(paths::TRACE, &(), &request).await?)
}

/// The digits of a frame, without what parts its octets.
fn digits(hex: &str) -> Result<String, Failure> {
    let digits: String = hex.chars().filter(|c| !c.is_whitespace() && !":-.".contains(*c)).collect();
    let wrong = digits.chars().find(|c| !c.is_ascii_hexdigit());
    let why = match wrong {
        Some(c) => format!("{c:?} is no hexadecimal digit"),
        None if digits.is_empty() => "it is empty".to_owned(),
        None if digits.len() % 2 == 1 => format!("{} digits are no whole octets", digits.len()),
        None => return Ok(digits),
    };
    Err(Failure::invalid(format!(
        "vswitchctl: --frame: {why}; write two digits an octet from the destination MAC on"
    )))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unreadable(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::invalid(format!("{}: {why}; name a pcap or pcapng file of Ethernet frames", file.display()))
}

/// The frames of a capture, in its order.
fn frames(path: &Path) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    if magic == PCAPNG { pcapng_frames(file) } else { pcap_frames(file) }
}

fn pcap_frames(file: impl Read) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut reader = PcapReader::new(file)?;
    is_ethernet(reader.header().datalink)?;
    let mut frames = Vec::new();
    // Raw: the lengths of a capture that was cut short by its snap length are no mistake here.
    while let Some(packet) = reader.next_raw_packet() {
        frames.push(packet?.data.into_owned());
    }
    Ok(frames)
}

fn pcapng_frames(file: impl Read) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut reader = PcapNgReader::new(file)?;
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        match block? {
            Block::InterfaceDescription(interface) => is_ethernet(interface.linktype)?,
            Block::EnhancedPacket(packet) => frames.push(packet.data.into_owned()),
            Block::SimplePacket(packet) => frames.push(packet.data.into_owned()),
            _ => {}
        }
    }
    Ok(frames)
}

fn is_ethernet(link: DataLink) -> Result<(), Box<dyn std::error::Error>> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(format!("it holds frames of {link:?}").into()) }
}

fn numbered(results: &[TraceResult]) -> String {
    let one = |(i, result)| format!("frame {}\n{}", i + 1, text(result));
    results.iter().enumerate().map(one).collect::<Vec<_>>().join("\n")
}

fn text(result: &TraceResult) -> String {
    let width = result.steps.iter().map(|s| s.stage.len()).max().unwrap_or(0);
    let mut out: String = result.steps.iter().map(|s| format!("{:<width$}  {}\n", s.stage, s.text)).collect();
    let network = result.network.as_deref().unwrap_or("no network");
    let ports = result.ports.join(", ");
    let end = match (result.outcome, &result.reason) {
        (Outcome::Unicast, _) => format!("sent in {network} by {ports}"),
        (Outcome::Flood, _) => format!("flooded in {network} by {ports}"),
        (Outcome::Drop, Some(reason)) => format!("dropped: {reason}"),
        (Outcome::Drop, None) => "dropped".to_owned(),
    };
    out.push_str(&format!("=> {end}\n"));
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_in_hexadecimal() {
        assert_eq!(digits("ff:ff-ff.ff FF\n00").ok().as_deref(), Some("ffffffffFF00"));
        for bad in ["", " : ", "fff", "xy", "0xff", "é0"] {
            assert!(digits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn captures_are_read_in_order_and_refused_when_they_are_none() {
        let write = |datalink| {
            let mut file = Vec::new();
            let mut writer =
                PcapWriter::with_header(&mut file, PcapHeader { datalink, ..PcapHeader::default() }).unwrap();
            for frame in [&[1, 2, 3][..], &[4]] {
                writer.write_packet(&PcapPacket::new(Duration::ZERO, 1500, frame)).unwrap();
            }
            file
        };
        let file = write(DataLink::ETHERNET);
        assert_eq!(pcap_frames(&file[..]).unwrap(), [vec![1, 2, 3], vec![4]]);
        assert!(pcap_frames(&file[..file.len() - 1]).is_err(), "cut short");
        assert!(pcap_frames(&write(DataLink::RAW)[..]).is_err(), "no Ethernet");
        assert!(pcapng_frames(&file[..]).is_err() && frames(Path::new("/dev/null")).is_err());
    }
    proptest! {
        #[test]
        fn no_file_makes_it_panic(
            magic in prop::sample::select(vec![PCAPNG, [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4]]),
            mut words in prop::collection::vec(prop_oneof![0..64u32, any::<u32>()], 0..64),
        ) {
            // The header of a section that is well formed gets further.
            if let [a, b, ..] = &mut words[..] {
                (*a, *b) = (28, 0x1a2b_3c4d);
            }
            let file: Vec<u8> = magic.into_iter().chain(words.into_iter().flat_map(u32::to_le_bytes)).collect();
            let _ = pcap_frames(&file[..]);
            let _ = pcapng_frames(&file[..]);
        }
    }
}
