//! Whose the fragments are that have no ports: those of a packet whose first fragment was a flow's.

use core::net::Ipv6Addr;

use super::flow::{Flow, VlanId};

/// Bytes of all fragments but the first that a packet can have, and some for repetitions.
const ROOM: u32 = 1 << 16;

/// A packet that is under way in fragments: what the storage of
/// [`FlowTable::with_fragments`](super::FlowTable::with_fragments) consists of.
#[derive(Debug, Clone)]
pub struct FirstFragment(Option<Entry>);

impl FirstFragment {
    /// Nothing is in it.
    pub const EMPTY: FirstFragment = FirstFragment(None);
}

impl Default for FirstFragment {
    fn default() -> Self {
        FirstFragment::EMPTY
    }
}

/// What all fragments of a packet have in common (RFC 791, 8200).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketId {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) id: u32,
    pub(super) protocol: u8,
    pub(super) vlan: Option<VlanId>,
    /// By us.
    pub(super) sent: bool,
}

/// Where in its packet a fragment is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u16,
    pub(super) len: u16,
}

#[derive(Debug, Clone)]
struct Entry {
    id: PacketId,
    /// Whose the packet is.
    flow: Flow,
    /// Bytes of the first fragment: the others begin behind.
    first: u16,
    /// Bytes that may still come.
    room: u32,
}

/// The last packets of flows that came, or went, in fragments.
///
/// There is no clock: an entry ages as others are made, each by the first fragment of a VMIO packet. It
/// ends early when its flow does, or when its identification is seen to be another packet's; but not when
/// its packet is complete, lest one that comes twice and out of order is taken for complete.
#[derive(Debug)]
pub(super) struct Fragments<'m> {
    slots: &'m mut [FirstFragment],
    next: usize,
}

impl<'m> Fragments<'m> {
    pub(super) fn new(slots: &'m mut [FirstFragment]) -> Self {
        slots.fill(FirstFragment::EMPTY);
        Fragments { slots, next: 0 }
    }

    pub(super) fn any_place(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Remembers a packet by its first fragment, which is that of a flow and has all of the transport
    /// header in it; `false` if there is nowhere to do so. O(slots).
    pub(super) fn begin(&mut self, id: PacketId, flow: Flow, first: Extent) -> bool {
        let entry = Entry {
            id,
            flow,
            first: first.len,
            room: ROOM,
        };
        let known = |slot: &FirstFragment| slot.0.as_ref().is_some_and(|entry| entry.id == id);
        let at = match self.slots.iter().position(known) {
            Some(again) => again,
            None => self.next,
        };
        let Some(slot) = self.slots.get_mut(at) else {
            return false;
        };
        *slot = FirstFragment(Some(entry));
        if at == self.next {
            self.next = (at + 1) % self.slots.len();
        }
        true
    }

    /// Forgets a packet: its identification came again, at the beginning of somebody else's. O(slots).
    pub(super) fn end(&mut self, id: PacketId) {
        self.forget(|entry| entry.id == id);
    }

    /// Forgets the packets of a flow, which ends. O(slots).
    pub(super) fn end_flow(&mut self, flow: Flow) {
        self.forget(|entry| entry.flow == flow);
    }

    fn forget(&mut self, is_over: impl Fn(&Entry) -> bool) {
        for slot in &mut *self.slots {
            slot.0 = slot.0.take().filter(|entry| !is_over(entry));
        }
    }

    /// Whether a fragment that is not the first is of a packet that is remembered. O(slots).
    pub(super) fn goes_on(&mut self, id: PacketId, part: Extent) -> bool {
        let mut entries = self.slots.iter_mut().filter_map(|slot| slot.0.as_mut());
        let Some(entry) = entries.find(|entry| entry.id == id) else {
            return false;
        };
        // Who writes over the first one could change whose packet it is (RFC 1858, 3128).
        if part.offset < entry.first {
            return false;
        }
        match entry.room.checked_sub(u32::from(part.len)) {
            Some(room) => {
                entry.room = room;
                true
            }
            None => false,
        }
    }
}
