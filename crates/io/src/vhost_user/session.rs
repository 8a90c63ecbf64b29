//! One front end's session: requests in, replies out, rings started and stopped. It does no input or output but for
//! mapping the memory that it was sent.
//!
//! A ring runs while all of this is so: it has a size, addresses and a kick (an eventfd, or word that there is none),
//! there is memory, and it is enabled. Rings are enabled one by one where protocol features were acknowledged, and
//! are otherwise from the beginning; QEMU enables them even before it sets any feature. A message that changes what a
//! running ring rests on stops it first and starts it again at its position after.
//!
//! A request that is refused ends the session, and with it everything that it owns: rings, mappings, file descriptors.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl, readlink};

use super::device::{Device, direction};
use super::features::{Features, Format};
use super::memory::{Memory, MemoryError, Region, RegionInfo};
use super::message::{Message, REGIONS, Reply, Request};
use super::record::Record;
use super::ring::{BadRing, Setup, Start};
use super::vring::{Running, signal};

// Protocol features.
const MQ: u64 = 1 << 0;
const RARP: u64 = 1 << 2;
const REPLY_ACK: u64 = 1 << 3;
/// User-mode Linux takes a back end without this channel for one without interrupts. Nothing is sent by it.
const BACKEND_REQ: u64 = 1 << 5;
const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
const PROTOCOL_OFFERED: u64 = MQ | RARP | REPLY_ACK | BACKEND_REQ | CONFIGURE_MEM_SLOTS;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("there is no ring {0}")]
    Index(u32),
    #[error("a ring of {0} entries")]
    Size(u32),
    #[error("ring {0} cannot be signalled by such a file")]
    Signal(u32),
    #[error("more than {REGIONS} memory regions")]
    Regions,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("ring {index} cannot be started: {source}")]
    Ring { index: usize, source: BadRing },
    #[error("the kernel refused to watch an eventfd")]
    Watch(#[from] io::Error),
}

/// What is known of a ring.
#[derive(Default)]
struct VringState {
    size: u16,
    areas: Option<[u64; 3]>,
    base: u32,
    /// The base that the front end said last, or was told.
    said: u32,
    /// It ran since the front end connected, so `base` is right.
    ran: bool,
    /// A kick was set, be it that there is none.
    kicked: bool,
    call: Option<Arc<OwnedFd>>,
    err: Option<OwnedFd>,
    /// `None` until the front end says so.
    enabled: Option<bool>,
    running: bool,
}

/// The back end's side of one connection.
pub(super) struct Session {
    device: Arc<Device>,
    features: Features,
    protocol: u64,
    memory: Arc<Memory>,
    vrings: Vec<VringState>,
    /// Kept open, since user-mode Linux takes its end as that of the device.
    _backend_req: Option<OwnedFd>,
}

impl Session {
    pub(super) fn new(device: Arc<Device>) -> Self {
        let vrings = device.vrings().iter().map(|_| VringState::default()).collect();
        let (features, memory) = (Features::default(), Arc::default());
        Self { device, features, protocol: 0, memory, vrings, _backend_req: None }
    }

    /// What the front end acknowledged.
    pub(super) const fn features(&self) -> Features {
        self.features
    }

    fn offered(&self) -> Features {
        Features::offered(self.device.pairs())
    }

    /// Queue pairs by which frames pass both ways.
    pub(super) fn running_pairs(&self) -> usize {
        self.vrings.chunks(2).filter(|pair| pair.iter().all(|vring| vring.running)).count()
    }

    /// A ring ran.
    pub(super) fn has_run(&self) -> bool {
        self.vrings.iter().any(|vring| vring.ran)
    }

    /// Obeys a request.
    pub(super) fn on_message(&mut self, message: Message) -> Result<Option<Reply>, Refused> {
        let number = message.number();
        let reply = |value: u64| Some(Message::reply(number, value));
        let need_reply = message.need_reply;
        let answer = match message.request {
            Request::GetFeatures => reply(self.offered().bits()),
            Request::GetProtocolFeatures => reply(PROTOCOL_OFFERED),
            // In queue pairs, as QEMU and DPDK have it for network devices.
            Request::GetQueueNum => reply(self.device.pairs() as u64),
            Request::GetMaxMemSlots => reply(REGIONS as u64),
            Request::GetVringBase { index } => {
                let base = self.take_base(index)?;
                Some(Reply::vring(number, index, base))
            }
            other => {
                self.on_order(other)?;
                None
            }
        };
        let acknowledge =
            || (need_reply && self.protocol & REPLY_ACK != 0).then(|| Message::reply(number, 0));
        Ok(answer.or_else(acknowledge))
    }

    /// Obeys a request that has no answer of its own.
    fn on_order(&mut self, request: Request) -> Result<(), Refused> {
        match request {
            Request::SetFeatures(bits) => {
                let offered = bits & !self.offered().bits() == 0;
                let features = Features::acknowledged(bits).filter(|_| offered);
                let features = features.ok_or(Refused::Features(bits))?;
                self.with_all_stopped(|session| {
                    session.features = features;
                    Ok(())
                })
            }
            Request::SetProtocolFeatures(bits) if bits & !PROTOCOL_OFFERED == 0 => {
                self.protocol = bits;
                Ok(())
            }
            Request::SetProtocolFeatures(bits) => Err(Refused::Features(bits)),
            Request::ResetOwner => self.with_all_stopped(|session| {
                session.vrings.iter_mut().for_each(|vring| vring.enabled = Some(false));
                Ok(())
            }),
            Request::SetMemTable(regions) => self.set_memory(|_| map_all(regions)),
            Request::AddMemReg(info, fd) => self.set_memory(|memory| add(memory, info, fd)),
            Request::RemMemReg(info) => self.set_memory(|memory| Ok(remove(memory, info))),
            Request::SetVringNum { index, size } => {
                let entries = u16::try_from(size).map_err(|_| Refused::Size(size))?;
                self.with_stopped(index, |vring| vring.size = entries)
            }
            Request::SetVringAddr { index, areas } => {
                self.with_stopped(index, |vring| vring.areas = Some(areas))
            }
            Request::SetVringBase { index, base } => {
                self.with_stopped(index, |vring| (vring.base, vring.said) = (base, base))
            }
            Request::SetVringEnable { index, enable } => {
                self.with_stopped(index, |vring| vring.enabled = Some(enable))
            }
            Request::SetVringKick { index, fd } => self.set_kick(index, fd),
            Request::SetVringCall { index, fd } => self.set_call(index, fd),
            Request::SetVringErr { index, fd } => {
                let fd = call(index, fd)?;
                self.vring(index)?.1.err = fd;
                Ok(())
            }
            Request::SendRarp(mac) => {
                self.device.announce(mac);
                Ok(())
            }
            Request::SetBackendReqFd(fd) => {
                self._backend_req = Some(fd);
                Ok(())
            }
            // Who owns the session is clear without it; the rest was answered.
            _ => Ok(()),
        }
    }

    /// The ring of a message, by its index.
    fn vring(&mut self, index: u32) -> Result<(usize, &mut VringState), Refused> {
        let place = index as usize;
        self.vrings.get_mut(place).map(|vring| (place, vring)).ok_or(Refused::Index(index))
    }

    /// Changes a ring while it rests.
    fn with_stopped(&mut self, index: u32, change: impl FnOnce(&mut VringState)) -> Result<(), Refused> {
        let (place, _) = self.vring(index)?;
        self.stop(place);
        change(self.vring(index)?.1);
        self.start(place)
    }

    /// Makes a change while all rings rest.
    fn with_all_stopped(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        (0..self.vrings.len()).for_each(|index| self.stop(index));
        change(self)?;
        (0..self.vrings.len()).try_for_each(|index| self.start(index))
    }

    fn stop(&mut self, index: usize) {
        let Some(state) = self.vrings.get_mut(index) else { return };
        if let Some(base) = self.device.stop(index) {
            (state.base, state.running) = (base, false);
        }
    }

    /// Starts a ring that has everything it needs.
    fn start(&mut self, index: usize) -> Result<(), Refused> {
        let Some(state) = self.vrings.get(index) else { return Ok(()) };
        let enabled = state.enabled.unwrap_or(!self.features.has_protocol());
        if !enabled || !state.kicked || state.running {
            return Ok(());
        }
        let Some(running) = self.take_up(index) else { return Ok(()) };
        self.device.start(index, running.map_err(|source| Refused::Ring { index, source })?);
        self.vrings.get_mut(index).into_iter().for_each(|state| (state.running, state.ran) = (true, true));
        Ok(())
    }

    /// Takes up a ring, if it is known where it is.
    fn take_up(&self, index: usize) -> Option<Result<Running, BadRing>> {
        let features = self.features;
        let state = self.vrings.get(index)?;
        let areas = state.areas.filter(|_| state.size > 0 && !self.memory.regions().is_empty())?;
        let setup = Setup {
            size: state.size,
            areas,
            direction: direction(index),
            packed: features.is_packed(),
            event_idx: features.has_event_idx(),
        };
        let (memory, call) = (Arc::clone(&self.memory), state.call.clone());
        let record = self.device.vrings().get(index).and_then(|vring| vring.record().cloned());
        let from = Start { base: state.base, said: state.said, known: state.ran, record };
        Some(Running::new(memory, setup, from, Format::new(features), call))
    }

    /// Stops a ring until it is given another kick, and returns its position.
    fn take_base(&mut self, index: u32) -> Result<u32, Refused> {
        let (place, _) = self.vring(index)?;
        self.stop(place);
        // One that did not run since the front end connected may not be where that said.
        let is_new = self.vrings.get(place).is_some_and(|state| !state.ran && state.kicked);
        let found = if is_new { self.take_up(place).and_then(Result::ok) } else { None };
        let (_, state) = self.vring(index)?;
        if let Some(mut found) = found {
            (state.base, state.ran) = (found.ring.queue().base(), true);
        }
        (state.kicked, state.said) = (false, state.base);
        let (base, is_known) = (state.base, state.ran);
        let Some(vring) = self.device.vrings().get(place) else { return Ok(base) };
        if is_known {
            // Now the front end knows better.
            vring.record().into_iter().for_each(Record::erase);
        }
        vring.set_kick(None)?;
        Ok(base)
    }

    fn set_kick(&mut self, index: u32, fd: Option<OwnedFd>) -> Result<(), Refused> {
        let fd = kick(index, fd)?;
        let (place, state) = self.vring(index)?;
        state.kicked = true;
        self.device.vrings().get(place).map_or(Ok(()), |vring| vring.set_kick(fd))?;
        self.start(place)
    }

    fn set_call(&mut self, index: u32, fd: Option<OwnedFd>) -> Result<(), Refused> {
        let call = call(index, fd)?.map(Arc::new);
        let (place, state) = self.vring(index)?;
        state.call.clone_from(&call);
        self.device.vrings().get(place).into_iter().for_each(|vring| vring.set_call(call.clone()));
        Ok(())
    }

    /// Puts other memory under all rings.
    fn set_memory(
        &mut self,
        regions: impl FnOnce(&Memory) -> Result<Vec<Arc<Region>>, Refused>,
    ) -> Result<(), Refused> {
        let memory = Arc::new(Memory::new(regions(&self.memory)?)?);
        self.with_all_stopped(|session| {
            session.memory = memory;
            Ok(())
        })
    }

    /// Tells the guest's side of the rings that broke.
    pub(super) fn report_broken(&self) {
        for (state, vring) in self.vrings.iter().zip(self.device.vrings()) {
            if let Some(err) = state.err.as_ref().filter(|_| vring.broken().is_some()) {
                signal(err);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (index, vring) in self.device.vrings().iter().enumerate() {
            self.device.stop(index);
            // It fails for none: the one that was there is out.
            let _ = vring.set_kick(None);
        }
    }
}

fn map_all(regions: Vec<(RegionInfo, OwnedFd)>) -> Result<Vec<Arc<Region>>, Refused> {
    regions.into_iter().map(|(info, fd)| Ok(Arc::new(Region::map(info, fd)?))).collect()
}

/// QEMU sends each region once for every queue pair: one that is there already is fine.
fn add(memory: &Memory, info: RegionInfo, fd: OwnedFd) -> Result<Vec<Arc<Region>>, Refused> {
    let mut regions = memory.regions().to_vec();
    if regions.iter().any(|region| region.info() == info) {
        return Ok(regions);
    }
    if regions.len() == REGIONS {
        return Err(Refused::Regions);
    }
    regions.push(Arc::new(Region::map(info, fd)?));
    Ok(regions)
}

/// So is one that is gone already. The offset says nothing here, and is not compared.
fn remove(memory: &Memory, info: RegionInfo) -> Vec<Arc<Region>> {
    let mut regions = memory.regions().to_vec();
    regions.retain(|region| RegionInfo { offset: info.offset, ..region.info() } != info);
    regions
}

/// Makes sure that a descriptor is of a kind that is good to watch: an eventfd, since others would have to be read.
fn kick(index: u32, fd: Option<OwnedFd>) -> Result<Option<OwnedFd>, Refused> {
    checked(index, fd, &["anon_inode:[eventfd]"])
}

/// Makes sure that a descriptor is of a kind that is good to write to. User-mode Linux sends sockets.
fn call(index: u32, fd: Option<OwnedFd>) -> Result<Option<OwnedFd>, Refused> {
    checked(index, fd, &["anon_inode:[eventfd]", "socket:", "pipe:"])
}

/// Makes sure that a descriptor is of one of these kinds, and does not block.
fn checked(index: u32, fd: Option<OwnedFd>, kinds: &[&str]) -> Result<Option<OwnedFd>, Refused> {
    let Some(fd) = fd else { return Ok(None) };
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str()).map_err(io::Error::from)?;
    if !kinds.iter().any(|kind| link.as_encoded_bytes().starts_with(kind.as_bytes())) {
        return Err(Refused::Signal(index));
    }
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
    Ok(Some(fd))
}

#[cfg(test)]
mod tests;
