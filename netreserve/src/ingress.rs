//! The drop ladder: what becomes of a received frame, decided at the first moment at which it can
//! be.

use core::fmt;

use lock_api::Mutex;
use mempool::__suite::{Counter, EVENTS, Writer, loud};
use mempool::{__event, CriticalSection};

use crate::ablation::{Ablation, Mechanism};
use crate::class::{self, ETHERNET_HEADER, VLAN_TAG, priority_tagged};
use crate::{
    Class, Control, DropCounts, DropReason, FlowTable, Medium, Skb, SkbError, SocketId, SocketTable,
};

/// What became of a received skb.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "what nobody takes out of the verdict is lost uncounted"]
pub enum Verdict<'m> {
    /// It serves the VM: the swap stack must have it, and must free it before it asks for the next.
    Swap(Skb<'m>),
    /// It is in a socket's queue.
    Delivered(SocketId),
    /// It serves neither the VM nor a socket here, and its memory is ordinary: a stack that shares
    /// the card may have it. If there is none, [`drop_skb`](Ingress::drop_skb) it for the reason
    /// given. It must not reach the swap stack: ARP of a stranger could evict the server's entry (N8).
    Unclaimed(Skb<'m>, DropReason),
    /// It is free again.
    Dropped(DropReason),
}

/// What an [`Ingress`] counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct IngressStats {
    /// Frames received.
    pub received: u64,
    /// Of those, in emergency skbs.
    pub received_emergency: u64,
    /// Frames of VMIO flows, handed to the swap stack or to the sockets that serve the VM.
    pub vmio: u64,
    /// Frames of their control plane, handed to the swap stack.
    pub control: u64,
    /// Frames queued at sockets.
    pub delivered: u64,
    /// Emergency skbs let out, with VMIO or its control plane in them.
    pub sent_emergency: u64,
    /// Frames dropped, received or to be sent, by reason.
    pub dropped: DropCounts,
    /// Frames of VMIO flows among them. Anything but 0 means that the swap connection is being
    /// fragmented on its way, and must use smaller segments; or [`DropReason::SharedTag`].
    pub vmio_dropped: u64,
}

/// Judges frames in both directions: an emergency skb serves the VM, or is freed at once (N2).
///
/// | frame | ordinary skb | emergency skb |
/// |---|---|---|
/// | cannot be read, or for another host | dropped | dropped |
/// | VMIO, or its control plane | swap stack | swap stack |
/// | UDP, TCP | its socket, within its limits | dropped |
/// | no such socket; foreign ARP, NDP, ICMP, fragment, other protocols | unclaimed | dropped |
///
/// VMIO for a socket that [serves the VM](SocketTable::set_vmio) goes there, and all other VMIO to the
/// swap stack: the limits of ordinary sockets cannot hold it up (N7). A fragment
/// serves nobody: only the first one of a packet has ports, and whoever let the others in would
/// have to keep them. The swap connection's segments must fit the path's MTU.
///
/// Shared by reference. O(1), and no lock is held while a packet is freed.
///
/// ```
/// use netreserve::{FlowTable, Ingress, ProtocolMemory, SocketTable};
///
/// let flows = FlowTable::new(&mut [], &mut []);
/// let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
/// let ingress = Ingress::new(&flows, &sockets, [2, 0, 0, 0, 0, 1]);
/// assert_eq!(ingress.stats().dropped.total(), 0);
/// ```
pub struct Ingress<'m> {
    flows: &'m FlowTable<'m>,
    sockets: &'m SocketTable<'m>,
    link: Link,
    books: Books,
    state: Mutex<CriticalSection, State>,
}

#[derive(Clone, Copy)]
enum Link {
    /// With the card's own address.
    Ethernet([u8; 6]),
    Ip,
}

/// What [`Ingress::stats`] reads without the lock. Written under it.
#[derive(Default)]
struct Books {
    received: Counter,
    received_emergency: Counter,
    vmio: Counter,
    control: Counter,
    delivered: Counter,
    sent_emergency: Counter,
    dropped: [Counter; DropReason::ALL.len()],
    vmio_dropped: Counter,
}

struct State {
    writer: Writer,
    ablation: Ablation,
}

impl<'m> Ingress<'m> {
    /// A ladder for the Ethernet card with the address `hardware_addr`.
    #[must_use]
    pub fn new(
        flows: &'m FlowTable<'m>,
        sockets: &'m SocketTable<'m>,
        hardware_addr: [u8; 6],
    ) -> Self {
        Self::with_link(flows, sockets, Link::Ethernet(hardware_addr))
    }

    /// A ladder for a card whose frames are IP packets ([`Medium::Ip`]). There is no other host on
    /// such a line, and nobody's address to ask for: whatever looks like that is a stranger's.
    ///
    /// ```
    /// use netreserve::{FlowTable, Ingress, Medium, ProtocolMemory, SocketTable};
    ///
    /// let flows = FlowTable::new(&mut [], &mut []);
    /// let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
    /// assert_eq!(Ingress::over_ip(&flows, &sockets).medium(), Medium::Ip);
    /// ```
    #[must_use]
    pub fn over_ip(flows: &'m FlowTable<'m>, sockets: &'m SocketTable<'m>) -> Self {
        Self::with_link(flows, sockets, Link::Ip)
    }

    fn with_link(flows: &'m FlowTable<'m>, sockets: &'m SocketTable<'m>, link: Link) -> Self {
        Ingress {
            flows,
            sockets,
            link,
            books: Books::default(),
            state: Mutex::new(State {
                writer: Writer::new(),
                ablation: Ablation::NONE,
            }),
        }
    }

    /// Judges a received frame. What serves the VM comes back without its priority tag, if it had
    /// one: stacks do not expect it.
    ///
    /// A driver hands in skbs that nobody [shares](Skb::is_shared): out of shared bytes no tag can
    /// be taken, and the frame is dropped ([`DropReason::SharedTag`]).
    pub fn receive(&self, skb: Skb<'m>) -> Verdict<'m> {
        let emergency = skb.is_emergency();
        let class = self.classify(skb.data());
        let ablation = self.ablation();
        // An emergency skb that is nobody's is not left to others (N2).
        let kept = emergency && !ablation.off(Mechanism::EmergencyUnclaimed);
        self.count(|books, writer| {
            books.received.count(writer);
            if emergency {
                books.received_emergency.count(writer);
            }
        });
        let reason = match class {
            Class::Malformed(_) => DropReason::Malformed,
            _ if self.other_host(skb.data()) => DropReason::OtherHost,
            Class::Vmio if ablation.off(Mechanism::VmioBypass) && !self.has_room(&skb) => {
                DropReason::ProtocolMemoryFull
            }
            Class::Vmio => return self.vmio(skb),
            Class::Control(control) if emergency && ablation.off(Mechanism::ControlPlane) => {
                match control {
                    Control::Arp => DropReason::EmergencyArp,
                    Control::Ndp => DropReason::EmergencyNdp,
                    Control::Mld | Control::IcmpError | Control::PacketTooBig => {
                        DropReason::EmergencyIcmp
                    }
                }
            }
            Class::Arp | Class::Ndp if ablation.off(Mechanism::ForeignArp) => {
                return self.hand_up(skb, class, None);
            }
            Class::Control(_) => return self.hand_up(skb, class, Some(&self.books.control)),
            Class::Socket {
                protocol,
                local_port,
            } => {
                let enqueue = ablation.off(Mechanism::VmioFilter)
                    || ablation.off(Mechanism::EmergencyUnclaimed)
                        && !self.sockets.is_bound(protocol, local_port);
                let result = if enqueue {
                    self.sockets.enqueue(protocol, local_port, skb)
                } else {
                    self.sockets.deliver(protocol, local_port, skb)
                };
                return match result {
                    Ok(socket) => {
                        self.count(|books, writer| books.delivered.count(writer));
                        Verdict::Delivered(socket)
                    }
                    Err((DropReason::NoSocket, skb)) if !kept => {
                        Verdict::Unclaimed(skb, DropReason::NoSocket)
                    }
                    Err((reason, skb)) => Verdict::Dropped(self.discard(skb, class, reason)),
                };
            }
            Class::Icmp if kept => DropReason::EmergencyIcmp,
            Class::Arp if kept => DropReason::EmergencyArp,
            Class::Ndp if kept => DropReason::EmergencyNdp,
            Class::Fragment { .. } if kept => DropReason::EmergencyFragment,
            Class::Other if kept => DropReason::EmergencyOther,
            Class::Arp => return Verdict::Unclaimed(skb, DropReason::ForeignArp),
            Class::Ndp => return Verdict::Unclaimed(skb, DropReason::ForeignNdp),
            Class::Fragment { .. } => return Verdict::Unclaimed(skb, DropReason::Fragment),
            Class::Icmp | Class::Other => return Verdict::Unclaimed(skb, DropReason::NoProtocol),
        };
        Verdict::Dropped(self.discard(skb, class, reason))
    }

    /// Frees a received skb and counts it under `reason` (`kfree_skb_reason`); returns the reason.
    pub fn drop_skb(&self, skb: Skb<'m>, reason: DropReason) -> DropReason {
        let class = self.classify(skb.data());
        self.discard(skb, class, reason)
    }

    /// Judges a finished frame before it is sent: an emergency skb carries VMIO or its control
    /// plane, or is freed and counted (N2, N6). TCP stacks carry no mark from a socket to its
    /// packets, so that the frame itself has to say.
    ///
    /// # Errors
    ///
    /// [`DropReason::EmergencyTransmit`]: the skb is free again.
    pub fn egress(&self, skb: Skb<'m>) -> Result<Skb<'m>, DropReason> {
        if !skb.is_emergency() {
            return Ok(skb);
        }
        let class = self.classify_outgoing(skb.data());
        if class.serves_vm() || self.ablation().off(Mechanism::EgressFilter) {
            self.count(|books, writer| books.sent_emergency.count(writer));
            Ok(skb)
        } else {
            Err(self.discard(skb, class, DropReason::EmergencyTransmit))
        }
    }

    /// A snapshot of the counters. O(reasons), without a lock; each number is right by itself.
    #[must_use]
    pub fn stats(&self) -> IngressStats {
        let books = &self.books;
        IngressStats {
            received: books.received.get(),
            received_emergency: books.received_emergency.get(),
            vmio: books.vmio.get(),
            control: books.control.get(),
            delivered: books.delivered.get(),
            sent_emergency: books.sent_emergency.get(),
            dropped: DropCounts::new(|reason| books.dropped[reason as usize].get()),
            vmio_dropped: books.vmio_dropped.get(),
        }
    }

    /// The sockets behind the ladder.
    #[must_use]
    pub fn sockets(&self) -> &'m SocketTable<'m> {
        self.sockets
    }

    /// What the frames begin with that it can read.
    #[must_use]
    pub fn medium(&self) -> Medium {
        match self.link {
            Link::Ethernet(_) => Medium::Ethernet,
            Link::Ip => Medium::Ip,
        }
    }

    pub(crate) fn flows(&self) -> &'m FlowTable<'m> {
        self.flows
    }

    /// Switches a mechanism of this ladder off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn ablation(&self) -> Ablation {
        if cfg!(feature = "ablation") {
            self.state.lock().ablation
        } else {
            Ablation::NONE
        }
    }

    /// Counts a frame that was lost before it could be sent.
    #[cfg(feature = "ablation")]
    pub(crate) fn count_lost(&self, frame: &[u8]) {
        let class = self.classify_outgoing(frame);
        self.count_drop(class, DropReason::EmergencyTransmit);
    }

    /// Whether the sockets of the protocol that is in an skb could hold it as well.
    fn has_room(&self, skb: &Skb<'_>) -> bool {
        class::protocol(skb.data(), self.medium())
            .is_none_or(|protocol| self.sockets.has_room(protocol, skb.truesize()))
    }

    /// Unicast to another card: a switch that does not know better, or promiscuous mode.
    fn other_host(&self, frame: &[u8]) -> bool {
        let Link::Ethernet(hardware_addr) = self.link else {
            return false;
        };
        frame
            .first_chunk::<6>()
            .is_some_and(|to| to[0] & 1 == 0 && *to != hardware_addr)
    }

    fn classify(&self, frame: &[u8]) -> Class {
        match self.link {
            Link::Ethernet(_) => class::classify(frame, self.flows),
            Link::Ip => class::classify_ip(frame, self.flows),
        }
    }

    fn classify_outgoing(&self, frame: &[u8]) -> Class {
        match self.link {
            Link::Ethernet(_) => class::classify_outgoing(frame, self.flows),
            Link::Ip => class::classify_ip_outgoing(frame, self.flows),
        }
    }

    /// A packet of a VMIO flow: for the socket that has the flow, or for the swap stack.
    fn vmio(&self, skb: Skb<'m>) -> Verdict<'m> {
        let any = self.sockets.any_vmio();
        let flow = any.then(|| class::received_flow(skb.data(), self.medium()));
        let result = match flow.flatten() {
            Some(flow) => self.sockets.deliver_vmio(flow, skb),
            None => Err((None, skb)),
        };
        match result {
            Ok(socket) => {
                self.count(|books, writer| {
                    books.vmio.count(writer);
                    books.delivered.count(writer);
                });
                Verdict::Delivered(socket)
            }
            Err((None, skb)) => self.hand_up(skb, Class::Vmio, Some(&self.books.vmio)),
            Err((Some(reason), skb)) => Verdict::Dropped(self.discard(skb, Class::Vmio, reason)),
        }
    }

    /// To the swap stack with it.
    fn hand_up(&self, mut skb: Skb<'m>, class: Class, counter: Option<&Counter>) -> Verdict<'m> {
        let stripped = match self.link {
            Link::Ethernet(_) => strip_tag(&mut skb),
            Link::Ip => Ok(()),
        };
        match stripped {
            Ok(()) => {
                self.count(|_, writer| counter.into_iter().for_each(|c| c.count(writer)));
                Verdict::Swap(skb)
            }
            Err(_) => Verdict::Dropped(self.discard(skb, class, DropReason::SharedTag)),
        }
    }

    fn discard(&self, skb: Skb<'m>, class: Class, reason: DropReason) -> DropReason {
        drop(skb);
        self.count_drop(class, reason);
        reason
    }

    fn count_drop(&self, class: Class, reason: DropReason) {
        let vmio = (class.serves_vm() || class == Class::Fragment { vmio: true })
            && reason != DropReason::OtherHost;
        let mut nth = 0;
        self.count(|books, writer| {
            books.dropped[reason as usize].count(writer);
            if vmio {
                books.vmio_dropped.count(writer);
                nth = books.vmio_dropped.get();
            }
        });
        if EVENTS && loud(nth) {
            __event!(
                warn,
                "VMIO traffic dropped ({} so far): {}, {:?}",
                nth,
                reason.name(),
                class
            );
        }
    }

    fn count(&self, update: impl FnOnce(&Books, &mut Writer)) {
        update(&self.books, &mut self.state.lock().writer);
    }
}

/// Moves the addresses over the tag.
fn strip_tag(skb: &mut Skb<'_>) -> Result<(), SkbError> {
    if priority_tagged(skb.data()) {
        skb.try_data_mut()?
            .copy_within(..ETHERNET_HEADER - 2, VLAN_TAG);
        skb.skip(VLAN_TAG)?;
    }
    Ok(())
}

impl fmt::Debug for Ingress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
