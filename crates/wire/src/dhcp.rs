//! DHCP for IPv4 (RFC 2131), as far as one has to know who is given which address for how long.

use core::net::Ipv4Addr;

use crate::{Mac, Malformed};

/// The UDP port that servers and relay agents listen at.
pub const SERVER_PORT: u16 = 67;
/// The UDP port that clients listen at.
pub const CLIENT_PORT: u16 = 68;

/// Bytes before the options: BOOTP's (RFC 951) without its vendor area.
const BOOTP_LEN: usize = 236;
/// What options begin with (RFC 2131 section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Hardware type and length of an Ethernet address.
const ETHERNET: [u8; 2] = [1, 6];

/// `op` of what a client sends.
pub const REQUEST: u8 = 1;
/// `op` of what a server sends.
pub const REPLY: u8 = 2;

/// The type of a server's message that gives an address (RFC 2132 section 9.6).
pub const ACK: u8 = 5;

/// A checked view of a message. Its options may end anywhere: what is read of them is inside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    header: &'a [u8; BOOTP_LEN],
    /// Behind the cookie; none in a message of BOOTP.
    options: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message that a UDP datagram carries.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { header, options: rest.strip_prefix(&COOKIE).unwrap_or_default() })
    }

    /// [`REQUEST`] or [`REPLY`].
    #[inline]
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.header[0]
    }

    /// The transaction.
    #[must_use]
    pub const fn xid(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// "Your" address: what the server gives the client.
    #[must_use]
    pub const fn yiaddr(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[16], self.header[17], self.header[18], self.header[19])
    }

    /// The client's MAC; `None` where its hardware is not Ethernet.
    #[must_use]
    pub fn client_mac(&self) -> Option<Mac> {
        Mac::from_slice(&self.header[28..34]).filter(|_| self.header[1..3] == ETHERNET)
    }

    /// What sort of message it is; `None` in a message of BOOTP.
    #[must_use]
    pub fn message_type(&self) -> Option<u8> {
        const MESSAGE_TYPE: u8 = 53;
        match self.option(MESSAGE_TYPE)? {
            &[message_type] => Some(message_type),
            _ => None,
        }
    }

    /// For how long the address is given, in seconds; all ones for ever (RFC 2131 section 3.3).
    #[must_use]
    pub fn lease_seconds(&self) -> Option<u32> {
        const LEASE_TIME: u8 = 51;
        Some(u32::from_be_bytes(self.option(LEASE_TIME)?.try_into().ok()?))
    }

    /// The first option of that code. Options in the fields for names, which "option overload" allows, are not looked
    /// for: no server moves there what every message must have.
    fn option(&self, wanted: u8) -> Option<&'a [u8]> {
        const PAD: u8 = 0;
        const END: u8 = 255;
        let mut rest = self.options;
        // Each turn takes a byte at least.
        loop {
            let (&code, behind) = rest.split_first()?;
            if code == END {
                return None;
            }
            if code == PAD {
                rest = behind;
                continue;
            }
            let (&len, behind) = behind.split_first()?;
            let (value, behind) = behind.split_at_checked(usize::from(len))?;
            if code == wanted {
                return Some(value);
            }
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; BOOTP_LEN];
        bytes[..8].copy_from_slice(&[REPLY, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        bytes[16..20].copy_from_slice(&[10, 0, 0, 7]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 5]);
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn an_ack() {
        let bytes =
            message(&[0, 53, 1, ACK, 54, 4, 10, 0, 0, 1, 51, 4, 0, 1, 0x51, 0x80, 255, 51, 4, 0, 0, 0, 1]);
        let ack = Message::new_checked(&bytes).unwrap();
        assert_eq!((ack.op(), ack.xid(), ack.yiaddr()), (REPLY, 0xdead_beef, [10, 0, 0, 7].into()));
        assert_eq!((ack.message_type(), ack.lease_seconds()), (Some(ACK), Some(86_400)));
        assert_eq!(ack.client_mac(), Some(Mac([2, 0, 0, 0, 0, 5])));
        for len in 0..BOOTP_LEN {
            assert_eq!(Message::new_checked(&bytes[..len]).unwrap_err(), Malformed::Truncated);
        }
    }

    #[test]
    fn what_is_not_there() {
        let read = |options: &[u8]| {
            let bytes = message(options);
            let message = Message::new_checked(&bytes).unwrap();
            (message.message_type(), message.lease_seconds())
        };
        assert_eq!(read(&[]), (None, None));
        assert_eq!(read(&[255, 53, 1, 5]), (None, None), "behind the end");
        assert_eq!(read(&[53, 2, 5, 5, 51, 3, 0, 0, 0]), (None, None), "of other lengths");
        assert_eq!(read(&[53, 200, 5]), (None, None), "longer than the message");
        assert_eq!(read(&[53]), (None, None), "without a length");
        let mut bytes = message(&[53, 1, 5]);
        bytes[BOOTP_LEN] = 0;
        assert_eq!(Message::new_checked(&bytes).unwrap().message_type(), None, "BOOTP");
        bytes[1] = 6;
        assert_eq!(Message::new_checked(&bytes).unwrap().client_mac(), None, "not Ethernet");
    }

    proptest! {
        /// As whoever walks the options by index finds them.
        #[test]
        fn options_are_those_that_are_there(options in prop::collection::vec(0..60_u8, 0..80)) {
            let bytes = message(&options);
            let mut at = 0;
            let mut expected = None;
            while let Some(code) = options.get(at) {
                at += 1;
                if *code == 0 {
                    continue;
                }
                let Some(len) = options.get(at).copied().map(usize::from) else { break };
                at += 1;
                if at + len > options.len() {
                    break;
                }
                if *code == 51 {
                    expected = Some(&options[at..at + len]);
                    break;
                }
                at += len;
            }
            let expected = expected.and_then(|v| Some(u32::from_be_bytes(v.try_into().ok()?)));
            prop_assert_eq!(Message::new_checked(&bytes).unwrap().lease_seconds(), expected);
        }

        #[test]
        fn any_bytes(mut bytes: Vec<u8>, len in 0..400_usize) {
            bytes.resize(len, 53);
            if let Ok(message) = Message::new_checked(&bytes) {
                let _ = (message.message_type(), message.lease_seconds(), message.client_mac(), message.xid());
            }
        }
    }
}
