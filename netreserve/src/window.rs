//! The window follows the buffers.
//!
//! A peer sends what the window allows. If that is more than the card has buffers for, the rest of
//! every burst is lost, and TCP sends it again a piece at a time, after a second, two, four, eight:
//! when memory is short and few buffers are posted, that is when nobody can wait. So whatever leaves
//! says that there is room for as many segments as buffers are posted now, and for one at least: the
//! connection goes on in small steps, without a loss. (A window that shrinks is unusual but lawful, RFC
//! 9293 section 3.8.6: the sender must cope.)
//!
//! Several connections share the buffers out evenly. Windows are numbers of 16 bits, shifted by what the
//! SYNs of both sides agreed on, which nobody tells later: so the last SYNs are remembered here.

mod segment;

use crate::{Flow, FlowTable, Medium, VlanId};
use segment::Segment;

/// Connections whose shift is known at once.
const CONNECTIONS: usize = 8;

/// What is known of the windows that the swap stack advertises.
#[derive(Debug)]
pub(crate) struct Window {
    /// Of the flows whose frames have no tag here: the ladder takes it off and puts it in.
    vlan: Option<VlanId>,
    connections: [Option<Connection>; CONNECTIONS],
    /// Counts what was sent: who was quiet for longest has the oldest number.
    clock: u32,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    flow: Flow,
    /// By how many bits the stack shifts its windows, as its last SYN said.
    scale: u8,
    /// Which acknowledgement answers that SYN, until the connection is made.
    expected: Option<u32>,
    used: u32,
}

impl Window {
    /// Of a stack whose ladder is in a VLAN, or in none.
    pub(crate) const fn new(vlan: Option<VlanId>) -> Self {
        Window {
            vlan,
            connections: [None; CONNECTIONS],
            clock: 0,
        }
    }

    fn in_network(&self, flow: Flow) -> Flow {
        match (flow.vlan(), self.vlan) {
            (None, Some(vlan)) => flow.in_vlan(vlan),
            _ => flow,
        }
    }

    /// Lowers the window of a finished frame to the share of one flow in `posted` buffers, for segments
    /// in packets of `mtu` bytes. The checksum follows, if it is `ours` to make. O(1).
    pub(crate) fn clamp(
        &mut self,
        frame: &mut [u8],
        medium: Medium,
        posted: usize,
        mtu: usize,
        ours: bool,
        flows: &FlowTable<'_>,
    ) {
        let Some(segment) = Segment::find(frame, medium) else {
            return;
        };
        let flow = self.in_network(segment.sent());
        self.clock = self.clock.wrapping_add(1);
        let headers = segment.headers();
        let tcp = segment.tcp(frame);
        // The window of a SYN is left alone: the next segment comes before any data can, and a peer that
        // has seen no window but a small one may send half segments.
        if tcp.syn() {
            *self.entry(flow, flows) = Some(Connection {
                flow,
                scale: tcp.window_scale().unwrap_or(0),
                expected: Some(tcp.sequence().wrapping_add(1)),
                used: self.clock,
            });
            return;
        }
        let known = self.connections.iter_mut().flatten();
        let scale = match known.into_iter().find(|c| c.flow == flow) {
            Some(connection) => {
                connection.expected = None;
                connection.used = self.clock;
                connection.scale
            }
            None => 0,
        };
        let share = (posted / flows.count().max(1)).max(1);
        let room = share.saturating_mul(mtu.saturating_sub(headers));
        // Rounded up: a sender waits long with a segment for which the last few bytes are missing.
        let most = room.div_ceil(1 << scale);
        if usize::from(tcp.window()) > most {
            segment.set_window(frame, most as u16, ours);
        }
    }

    /// Looks at a frame for the stack: windows are not shifted if the peer does not do so (RFC 7323
    /// section 1.3). A damaged one says nothing; `verify` whether nobody has looked for that yet.
    pub(crate) fn received(&mut self, frame: &[u8], medium: Medium, verify: bool) {
        if self
            .connections
            .iter()
            .flatten()
            .all(|c| c.expected.is_none())
        {
            return;
        }
        let Some(segment) = Segment::find(frame, medium) else {
            return;
        };
        let tcp = segment.tcp(frame);
        let Some(acknowledged) = tcp.acknowledges_syn() else {
            return;
        };
        let flow = self.in_network(segment.received());
        let mut known = self.connections.iter_mut().flatten();
        if let Some(connection) = known.find(|c| c.flow == flow)
            && connection.expected == Some(acknowledged)
            && tcp.window_scale().is_none()
            && (!verify || segment.is_intact(frame))
        {
            connection.scale = 0;
        }
    }

    /// Where a new connection goes: over its older self, or one that is no flow any more, or into an
    /// empty place, or over the one that was quiet for longest.
    fn entry(&mut self, flow: Flow, flows: &FlowTable<'_>) -> &mut Option<Connection> {
        let clock = self.clock;
        let worth = |entry: &Option<Connection>| match entry {
            Some(c) if c.flow == flow => (0, 0),
            None => (1, 0),
            Some(c) if !flows.contains(c.flow) => (2, 0),
            Some(c) => (3, u32::MAX - clock.wrapping_sub(c.used)),
        };
        self.connections
            .iter_mut()
            .min_by_key(|entry| worth(entry))
            .expect("there are places")
    }
}

#[cfg(test)]
mod tests;
