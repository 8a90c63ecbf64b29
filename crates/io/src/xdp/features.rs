//! Device features by their ethtool name (`ethtool -k`): which are on, and turning one off for a while.

use std::io;
use std::mem::size_of;

use super::device::ethtool;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// Words that an answer says of 32 features each: available, requested, active, never changed.
const STATE_WORDS: usize = 4;
const ACTIVE: usize = 2;

/// What takes 802.1Q and 802.1ad tags out of received frames.
const TAG_STRIPPING: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// Features that were on before, and are turned on again when this is dropped.
pub(super) struct TurnedOff {
    device: String,
    names: Vec<&'static str>,
}

/// Has the device leave VLAN tags in the frames. Says which feature it is where the device does not let go.
pub(super) fn keep_tags(device: &str) -> io::Result<Result<TurnedOff, &'static str>> {
    let on = |device: &str, name| Ok::<_, io::Error>(is_on(&features(device)?, name));
    let mut off = TurnedOff { device: device.to_owned(), names: Vec::new() };
    for name in TAG_STRIPPING {
        if !on(&off.device, name)? {
            continue;
        }
        if set(&off.device, name, false).is_err() || on(&off.device, name)? {
            return Ok(Err(name));
        }
        off.names.push(name);
    }
    Ok(Ok(off))
}

impl Drop for TurnedOff {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = set(&self.device, name, true); // the device may be gone
        }
    }
}

/// All features that the kernel knows, in the order of their bits, and whether they are on.
fn features(device: &str) -> io::Result<Vec<(String, bool)>> {
    let count = count(device)?;
    let mut strings =
        Words::new(ETHTOOL_GSTRINGS, &[ETH_SS_FEATURES, count as u32], count * ETH_GSTRING_LEN / 4);
    strings.run(device)?;
    let mut state =
        Words::new(ETHTOOL_GFEATURES, &[count.div_ceil(32) as u32], count.div_ceil(32) * STATE_WORDS);
    state.run(device)?;
    let names = strings.0[3..].chunks_exact(ETH_GSTRING_LEN / 4);
    Ok(names.enumerate().map(|(bit, name)| (text(name), state.bit(2, ACTIVE, bit))).collect())
}

fn count(device: &str) -> io::Result<usize> {
    // cmd, reserved, 64-bit mask of sets, then one word for each set asked for.
    let mask = 1_u64 << ETH_SS_FEATURES;
    let [low, high]: [u32; 2] = if cfg!(target_endian = "little") {
        [mask as u32, (mask >> 32) as u32]
    } else {
        [(mask >> 32) as u32, mask as u32]
    };
    let mut info = Words::new(ETHTOOL_GSSET_INFO, &[0, low, high], 1);
    info.run(device)?;
    Ok(info.0[4] as usize)
}

fn is_on(features: &[(String, bool)], name: &str) -> bool {
    features.iter().any(|(known, on)| known == name && *on)
}

fn set(device: &str, name: &str, on: bool) -> io::Result<()> {
    let known = features(device)?;
    let Some(bit) = known.iter().position(|(n, _)| n == name) else { return Ok(()) };
    // Pairs of words: which features are meant, and what they shall be.
    let words = known.len().div_ceil(32);
    let mut request = Words::new(ETHTOOL_SFEATURES, &[words as u32], words * 2);
    let at = 2 + bit / 32 * 2;
    request.0[at] = 1 << (bit % 32);
    request.0[at + 1] = u32::from(on) << (bit % 32);
    request.run(device)
}

/// An ethtool command as words: the command, its arguments, and room for the answer.
struct Words(Vec<u32>);

impl Words {
    fn new(command: u32, arguments: &[u32], room: usize) -> Self {
        let mut words = vec![command];
        words.extend(arguments);
        words.resize(words.len() + room, 0);
        Self(words)
    }

    fn run(&mut self, device: &str) -> io::Result<()> {
        // SAFETY: each caller gives the room that the command's own counts ask for, and the kernel writes no more.
        unsafe { ethtool(device, self.0.as_mut_slice()) }
    }

    /// A feature's bit in one kind of word of its block.
    fn bit(&self, blocks_at: usize, kind: usize, feature: usize) -> bool {
        let word = blocks_at + feature / 32 * STATE_WORDS + kind;
        self.0.get(word).is_some_and(|w| w >> (feature % 32) & 1 != 0)
    }
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

const _: () = assert!(ETH_GSTRING_LEN.is_multiple_of(size_of::<u32>()));
