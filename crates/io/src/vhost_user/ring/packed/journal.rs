//! What is written down of a packed ring, so that it can be taken up after the process was killed.
//!
//! A kill may come between any two stores. The guest sees nothing of a batch until its first descriptor says "used",
//! so a batch is either published or undone:
//!
//! 1. Before any descriptor but the first is overwritten, what is in it goes to the log.
//! 2. Before the first one is, the record says where the batch ends. From here on whether it was published can be told
//!    by that descriptor.
//! 3. Then the end is the position, and the log is empty.
//!
//! All of these are release stores, so they come in this order. A killed process has done all stores up to some point
//! and none after it; that this holds for the machine, too, needs no barrier.

use super::super::{Broken, Setup, store, word};
use super::{DESCRIPTOR, EVENT_OFFSET, FLAGS, LEN, Position, USED};
use crate::vhost_user::record::{ENTRIES, Identity, Record, State};
use crate::vhost_user::ring::Start;
use vm_memory::VolatileSlice;

/// Tells a ring that we worked on from one that its driver has set up anew meanwhile, in the same place and of the same
/// position. It is in the offset of the device's event, which we never ask a driver to look at (2.8.10): drivers begin
/// with a zeroed one (Linux and DPDK do), and never write to it.
/// The flags of descriptors would not do: where chains go over the end of the ring, a used one may have none left that says so.
const MARK: u16 = 0xffff;

/// The record of a ring in use.
pub(super) struct Journal {
    record: Record,
    /// As in [`State`].
    position: Position,
    count: u16,
}

impl Journal {
    /// Takes up a ring where the front end says it is, or where the record says so, if that is of the same ring and this
    /// process did not work on it before. Returns its position.
    pub(super) fn open(
        start: Start,
        setup: &Setup,
        said: Position,
        [table, device]: [&VolatileSlice<'_>; 2],
    ) -> Result<(Option<Self>, Position), Broken> {
        let Some(record) = start.record else {
            // Who has a record for it later must not take it for the ring that was left.
            store(device, 0_u16, EVENT_OFFSET)?;
            return Ok((None, said));
        };
        let identity = Identity { areas: setup.areas, size: setup.size, said: start.said as u16 };
        let marked = word(device, EVENT_OFFSET)? == MARK;
        let found = if marked && !start.known { recover(&record, &identity, table)? } else { None };
        let position = found.unwrap_or(said);
        record.begin(&identity, State::at(position.bits()));
        store(device, MARK.to_le(), EVENT_OFFSET)?;
        Ok((Some(Self { record, position, count: 0 }), position))
    }

    /// There is room for what so many descriptors were. Otherwise what was used must be published.
    pub(super) fn has_room(&self, descriptors: usize) -> bool {
        usize::from(self.count) + descriptors <= usize::from(ENTRIES)
    }

    /// A descriptor behind the first one of a batch is about to be used. Its upper half is this now.
    #[inline]
    pub(super) fn note(&mut self, slot: u16, descriptor: u64) {
        self.count += 1;
        self.record.log(self.state(self.position), slot, descriptor);
    }

    /// A batch that ends at `next` is about to be published.
    pub(super) fn begin(&self, next: Position) {
        self.record.set(self.state(next));
    }

    /// It was.
    pub(super) fn end(&mut self, next: Position) {
        (self.position, self.count) = (next, 0);
        self.record.set(self.state(next));
    }

    fn state(&self, next: Position) -> State {
        State { position: self.position.bits(), next: next.bits(), count: self.count }
    }
}

/// Finishes or undoes the batch that a process before this one was at, and returns the position. May be cut short
/// and done again.
fn recover(
    record: &Record,
    identity: &Identity,
    table: &VolatileSlice<'_>,
) -> Result<Option<Position>, Broken> {
    let Some((state, log)) = record.of(identity) else { return Ok(None) };
    let [position, next] = [state.position, state.next].map(Position::from_bits);
    let slots = log.iter().map(|(slot, _)| *slot).chain([position.slot, next.slot]);
    if slots.into_iter().any(|slot| slot >= identity.size) {
        return Ok(None);
    }
    // Until it is used this bit is of the other round. It is of this one then, and remains so when the driver makes the
    // descriptor available in the next round.
    let flags = word(table, usize::from(position.slot) * DESCRIPTOR + FLAGS)?;
    if next != position && (flags & USED != 0) == position.wrap {
        return Ok(Some(next));
    }
    for (slot, descriptor) in log {
        store(table, descriptor.to_le(), usize::from(slot) * DESCRIPTOR + LEN)?;
    }
    Ok(Some(position))
}
