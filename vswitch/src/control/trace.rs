//! `trace`: what the switch would do with a frame, in words. Changes nothing.

use vswitch_api::request::Trace;
use vswitch_api::response::{ErrorBody, ErrorCode, Outcome, TraceResult, TraceStep};
use vswitch_dataplane::Explained;
use vswitch_dataplane::{NetId, PortId, Verdict, egress, explain};
use vswitch_io::{Frame, FrameClass};
use vswitch_wire::FrameBuf;

use super::Control;

impl Control {
    /// Follows one frame through the pipeline.
    ///
    /// # Errors
    /// The port does not exist, or the frame is no frame.
    pub fn trace(&self, request: &Trace) -> Result<TraceResult, ErrorBody> {
        let invalid = |what: &str| {
            let mend = "give the frame from the destination MAC on, two hexadecimal digits a byte";
            ErrorBody::new(ErrorCode::Invalid, what, mend)
        };
        let Some(ingress) = self.port_ids.get(&request.port).map(PortId) else {
            return Err(ErrorBody::no_port(&request.port));
        };
        let bytes = from_hex(&request.frame).ok_or_else(|| invalid("the frame is not hexadecimal"))?;
        let mut pool = self.opener.pool.cache();
        let empty = || ErrorBody::new(ErrorCode::Failed, "no free frame", "try again");
        let mut frame = pool.acquire(FrameClass::Large).ok_or_else(empty)?;
        if bytes.len() > frame.capacity() {
            return Err(invalid("the frame is longer than any frame can be"));
        }
        frame.set_len(bytes.len());
        frame.bytes_mut().copy_from_slice(&bytes);
        let Explained { verdict, ingress, steps } =
            explain(&self.snapshot, self.clock.now(), ingress, &mut frame);
        let mut result = TraceResult {
            steps: steps
                .iter()
                .map(|s| TraceStep { stage: s.stage.to_owned(), text: self.name_all(&s.text) })
                .collect(),
            outcome: Outcome::Drop,
            network: None,
            ports: Vec::new(),
            reason: None,
        };
        match verdict {
            Verdict::Unicast { network, port } => {
                self.leave(&mut result, Outcome::Unicast, (network, ingress), [port], &frame);
            }
            Verdict::Flood { network } => {
                let ports = self.snapshot.flood(network, ingress);
                self.leave(&mut result, Outcome::Flood, (network, ingress), ports, &frame);
            }
            Verdict::Drop(reason) => result.reason = Some(reason.name().to_owned()),
            // What was in a tunnel has been followed further.
            Verdict::Decapsulated { .. } | Verdict::Pending => {}
        }
        pool.release(frame);
        Ok(result)
    }

    /// The network, and the ports of those given that the frame really leaves by. Where it leaves by none it is
    /// dropped, for the reason that the first of them has.
    fn leave(
        &self,
        result: &mut TraceResult,
        outcome: Outcome,
        (network, ingress): (NetId, PortId),
        ports: impl IntoIterator<Item = PortId>,
        frame: &Frame,
    ) {
        result.network = self.net_ids.name(network.0).map(str::to_owned);
        let mut pool = self.opener.pool.cache();
        let mut refusal = None;
        for port in ports {
            let Some(mut copy) = pool.copy(frame) else { continue };
            match egress::prepare(&self.snapshot, network, ingress, port, &mut copy, None) {
                Ok(_) => result.ports.extend(self.port_ids.name(port.0).map(str::to_owned)),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
            pool.release(copy);
        }
        match refusal.filter(|_| result.ports.is_empty()) {
            Some(reason) => result.reason = Some(reason.name().to_owned()),
            None => result.outcome = outcome,
        }
    }

    /// Puts names in the place of `{port N}` and `{network N}`.
    fn name_all(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((inside, tail)) = after.split_once('}') else {
                rest = after;
                break;
            };
            out.push_str(&self.name_one(inside));
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    fn name_one(&self, what: &str) -> String {
        let named = what.split_once(' ').and_then(|(kind, id)| {
            let id = id.parse().ok()?;
            match kind {
                "port" => self.port_ids.name(id),
                "network" => self.net_ids.name(id),
                _ => None,
            }
            .map(|name| format!("{kind} {name}"))
        });
        named.unwrap_or_else(|| what.to_owned())
    }
}

/// Digits in pairs; blanks and colons between bytes are let through, as tools print them.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b':').collect();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::from_hex;

    #[test]
    fn hexadecimal_as_tools_print_it() {
        assert_eq!(from_hex("02:0a ff"), Some(vec![2, 10, 255]));
        assert_eq!((from_hex("123"), from_hex("zz")), (None, None));
        assert_eq!(from_hex(""), Some(vec![]));
    }
}
