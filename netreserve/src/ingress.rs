//! The drop ladder: what becomes of a received frame, decided at the first moment at which it can
//! be.

use core::fmt;

use lock_api::Mutex;
use mempool::__suite::{Counter, EVENTS, Writer, loud};
use mempool::{__event, CriticalSection};

use crate::ablation::{Ablation, Mechanism};
use crate::class::{self, ETHERNET_HEADER, ETHERTYPE_VLAN, VLAN_TAG, tag_number};
use crate::{
    Class, Consumer, ConsumerError, ConsumerId, ConsumerSlot, Control, DropCounts, DropReason,
    FlowTable, Keeps, Medium, Protocol, Sees, Skb, SkbError, SocketId, SocketTable, VlanId,
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
    /// A [consumer](Consumer) has it.
    Taken(ConsumerId),
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
    /// Of those, fragments.
    pub vmio_fragments: u64,
    /// Frames of their control plane, handed to the swap stack.
    pub control: u64,
    /// Frames queued at sockets.
    pub delivered: u64,
    /// Frames that a consumer took.
    pub taken: u64,
    /// Frames that no consumer was shown, because they came in emergency skbs.
    pub untapped: u64,
    /// Emergency skbs let out, with VMIO or its control plane in them.
    pub sent_emergency: u64,
    /// Frames dropped, received or to be sent, by reason.
    pub dropped: DropCounts,
    /// Frames of VMIO flows among them. Anything but 0 means that the swap connection is being
    /// fragmented on its way, and that the flow table has
    /// [no place](FlowTable::with_fragments) to remember that; or [`DropReason::SharedTag`].
    pub vmio_dropped: u64,
}

/// Judges frames in both directions: an emergency skb serves the VM, or is freed at once (N2).
///
/// | frame | ordinary skb | emergency skb |
/// |---|---|---|
/// | cannot be read, or for another host | dropped | dropped |
/// | VMIO for a socket that serves the VM | the socket, within its room | the same |
/// | other VMIO, its fragments, or its control plane | swap stack | swap stack |
/// | anything else | shown to the consumers, who may take it | |
/// | UDP, TCP | its socket, within its limits | dropped |
/// | no such socket; foreign ARP, NDP, ICMP, fragment, other protocols | unclaimed | dropped |
///
/// VMIO for a socket that [serves the VM](SocketTable::set_vmio) goes there, and all other VMIO to the
/// swap stack: the limits of ordinary sockets cannot hold it up (N7). A socket's queue holds whole
/// packets: what comes in fragments goes to the swap stack whoever it is for, to be
/// [put together](crate::Reassembly) there. A server whose replies exceed the MTU is for a swap stack, or
/// is asked for less at a time. Consumers see what is in ordinary memory, and take what is not VMIO: see [`Consumer`].
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
    vlan: Option<VlanId>,
    books: Books,
    state: Mutex<CriticalSection, State<'m>>,
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
    vmio_fragments: Counter,
    control: Counter,
    delivered: Counter,
    taken: Counter,
    untapped: Counter,
    sent_emergency: Counter,
    dropped: [Counter; DropReason::ALL.len()],
    vmio_dropped: Counter,
}

struct State<'m> {
    writer: Writer,
    consumers: &'m mut [ConsumerSlot<'m>],
    /// One more than the last that is in use.
    consumers_end: usize,
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
            vlan: None,
            books: Books::default(),
            state: Mutex::new(State {
                writer: Writer::new(),
                consumers: &mut [],
                consumers_end: 0,
                ablation: Ablation::NONE,
            }),
        }
    }

    /// For a swap stack that lives in a VLAN: the tag is taken out of what comes up to it, and put into
    /// what it sends, for which skbs need [4 bytes](crate::SkbPool::with_headroom) of headroom. Its flows
    /// and peers are those [of the VLAN](crate::Flow::in_vlan). A stack without one gets the frames of
    /// flows in VLANs with their tags.
    ///
    /// ```
    /// use netreserve::{FlowTable, Ingress, ProtocolMemory, SocketTable, VlanId};
    ///
    /// let flows = FlowTable::new(&mut [], &mut []);
    /// let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
    /// let ingress = Ingress::new(&flows, &sockets, [2, 0, 0, 0, 0, 1]);
    /// let ingress = ingress.in_vlan(VlanId::new(17).unwrap());
    /// ```
    #[must_use]
    pub fn in_vlan(mut self, vlan: VlanId) -> Self {
        self.vlan = Some(vlan);
        self
    }

    /// Gives the ladder places for consumers.
    ///
    /// ```
    /// use netreserve::{ConsumerSlot, FlowTable, Ingress, ProtocolMemory, SocketTable};
    ///
    /// let flows = FlowTable::new(&mut [], &mut []);
    /// let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
    /// let mut slots = [ConsumerSlot::EMPTY; 2];
    /// let ingress = Ingress::new(&flows, &sockets, [2, 0, 0, 0, 0, 1]).with_consumers(&mut slots);
    /// ```
    #[must_use]
    pub fn with_consumers(mut self, slots: &'m mut [ConsumerSlot<'m>]) -> Self {
        slots.fill(ConsumerSlot::EMPTY);
        let state = self.state.get_mut();
        (state.consumers, state.consumers_end) = (slots, 0);
        self
    }

    /// Registers a consumer. It is called for frames in the order of the slots. O(slots).
    ///
    /// # Errors
    ///
    /// [`ConsumerError::KeepsVmio`]: what its [policy](Consumer::policy) asks for cannot be had;
    /// [`ConsumerError::Full`]: no slot is left.
    pub fn register(&self, consumer: &'m dyn Consumer<'m>) -> Result<ConsumerId, ConsumerError> {
        let policy = consumer.policy();
        if !self.ablation().off(Mechanism::TapRefusal) {
            policy.check()?;
        }
        let mut state = self.state.lock();
        let free = state.consumers.iter().position(|slot| slot.0.is_none());
        let at = free.ok_or(ConsumerError::Full)?;
        state.consumers[at] = ConsumerSlot(Some((consumer, policy)));
        state.consumers_end = state.consumers_end.max(at + 1);
        Ok(ConsumerId(at))
    }

    /// Ends a registration; `false` if there was none. A frame that is being judged elsewhere may still
    /// be shown.
    pub fn unregister(&self, id: ConsumerId) -> bool {
        let mut state = self.state.lock();
        let slot = state.consumers.get_mut(id.0);
        let was = slot.is_some_and(|slot| slot.0.take().is_some());
        let last = state.consumers.iter().rposition(|slot| slot.0.is_some());
        state.consumers_end = last.map_or(0, |last| last + 1);
        was
    }

    /// Judges a received frame. What serves the VM comes back without its priority tag, if it had
    /// one: stacks do not expect it.
    ///
    /// A driver hands in skbs that nobody [shares](Skb::is_shared): out of shared bytes no tag can
    /// be taken, and the frame is dropped ([`DropReason::SharedTag`]).
    pub fn receive(&self, skb: Skb<'m>) -> Verdict<'m> {
        let emergency = skb.is_emergency();
        let ablation = self.ablation();
        self.count(|books, writer| {
            books.received.count(writer);
            if emergency {
                books.received_emergency.count(writer);
            }
        });
        // Before anything is learned from it.
        if self.other_host(skb.data()) {
            return Verdict::Dropped(self.discard(skb, Class::Other, DropReason::OtherHost));
        }
        let class = match self.classify(skb.data()) {
            Class::Control(Control::Dhcp) if ablation.off(Mechanism::Dhcp) => Class::Socket {
                protocol: Protocol::Udp,
                local_port: class::DHCP_CLIENT_PORT,
            },
            Class::VmioFragment if ablation.off(Mechanism::Fragments) => {
                Class::Fragment { vmio: true }
            }
            Class::Malformed(_) => return self.dropped(skb, Class::Other, DropReason::Malformed),
            class => class,
        };
        match self.offer(
            skb,
            class,
            emergency && !ablation.off(Mechanism::TapRefusal),
        ) {
            Ok(skb) => self.judge(skb, class, ablation),
            Err(taken) => Verdict::Taken(taken),
        }
    }

    /// What becomes of a frame that can be read, is for us, and was taken by no consumer.
    fn judge(&self, skb: Skb<'m>, class: Class, ablation: Ablation) -> Verdict<'m> {
        let emergency = skb.is_emergency();
        // An emergency skb that is nobody's is not left to others (N2).
        let kept = emergency && !ablation.off(Mechanism::EmergencyUnclaimed);
        match class {
            Class::Vmio if ablation.off(Mechanism::VmioBypass) && !self.has_room(&skb) => {
                self.dropped(skb, class, DropReason::ProtocolMemoryFull)
            }
            Class::Vmio => self.vmio(skb),
            Class::VmioFragment => {
                self.hand_up(skb, class, &[&self.books.vmio, &self.books.vmio_fragments])
            }
            Class::Control(control) if emergency && ablation.off(Mechanism::ControlPlane) => {
                self.dropped(skb, class, DropReason::emergency_control(control))
            }
            Class::Control(_) => self.hand_up(skb, class, &[&self.books.control]),
            Class::Arp | Class::Ndp if ablation.off(Mechanism::ForeignArp) => {
                self.hand_up(skb, class, &[])
            }
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
                match result {
                    Ok(socket) => {
                        self.count(|books, writer| books.delivered.count(writer));
                        Verdict::Delivered(socket)
                    }
                    Err((DropReason::NoSocket, skb)) if !kept => {
                        Verdict::Unclaimed(skb, DropReason::NoSocket)
                    }
                    Err((reason, skb)) => self.dropped(skb, class, reason),
                }
            }
            Class::Malformed(_) => self.dropped(skb, class, DropReason::Malformed),
            Class::Arp | Class::Ndp | Class::Icmp | Class::Fragment { .. } | Class::Other => {
                let (in_emergency, ordinary) = DropReason::of_nobody(class);
                if kept {
                    self.dropped(skb, class, in_emergency)
                } else {
                    Verdict::Unclaimed(skb, ordinary)
                }
            }
        }
    }

    /// Shows a frame to the consumers, unless it is `withheld`; it comes back if nobody takes it.
    fn offer(&self, mut skb: Skb<'m>, class: Class, withheld: bool) -> Result<Skb<'m>, ConsumerId> {
        let mut at = 0;
        while let Some((id, consumer, sees, keeps)) = self.consumer(&mut at) {
            if withheld {
                self.count(|books, writer| books.untapped.count(writer));
                break;
            }
            let vmio = class.serves_vm() && sees == Sees::Foreign;
            match keeps {
                _ if vmio => {}
                Keeps::Nothing | Keeps::Copies => consumer.look(skb.data(), class),
                Keeps::Skbs => match consumer.take(skb, class) {
                    Ok(()) => {
                        self.count(|books, writer| books.taken.count(writer));
                        return Err(id);
                    }
                    Err(passed) => skb = passed,
                },
            }
        }
        Ok(skb)
    }

    /// The next consumer from `at` on.
    fn consumer(&self, at: &mut usize) -> Option<(ConsumerId, &'m dyn Consumer<'m>, Sees, Keeps)> {
        let state = self.state.lock();
        let end = state.consumers_end;
        let slots = state.consumers.get(*at..end)?.iter().enumerate();
        let (skipped, (consumer, policy)) = { slots }.find_map(|(i, slot)| Some((i, slot.0?)))?;
        let id = *at + skipped;
        *at = id + 1;
        Some((ConsumerId(id), consumer, policy.sees, policy.keeps))
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
    /// A stack [in a VLAN](Ingress::in_vlan) sends frames without a tag: here they get it.
    ///
    /// # Errors
    ///
    /// [`DropReason::EmergencyTransmit`]; or [`DropReason::NoHeadroom`] or [`DropReason::SharedTag`] if the
    /// tag cannot be put in, [`DropReason::Malformed`] if there is no header to put it into. The skb is free
    /// again.
    pub fn egress(&self, mut skb: Skb<'m>) -> Result<Skb<'m>, DropReason> {
        let emergency = skb.is_emergency();
        // Wherever the first fragment of a packet lies: the others may lie in the reserve.
        if emergency || self.flows.remembers_fragments() {
            let class = self.classify_outgoing(skb.data());
            let ablation = self.ablation();
            let off = class == Class::Control(Control::Dhcp) && ablation.off(Mechanism::Dhcp)
                || class == Class::VmioFragment && ablation.off(Mechanism::Fragments);
            let serves = class.serves_vm() && !off;
            if emergency && !serves && !ablation.off(Mechanism::EgressFilter) {
                return Err(self.discard(skb, class, DropReason::EmergencyTransmit));
            }
        }
        if let Some(vlan) = self.vlan
            && matches!(self.link, Link::Ethernet(_))
            && let Err(error) = insert_tag(&mut skb, vlan)
        {
            let class = self.classify_outgoing(skb.data());
            let reason = match error {
                SkbError::Shared => DropReason::SharedTag,
                SkbError::TooShort => DropReason::Malformed,
                _ => DropReason::NoHeadroom,
            };
            return Err(self.discard(skb, class, reason));
        }
        if emergency {
            self.count(|books, writer| books.sent_emergency.count(writer));
        }
        Ok(skb)
    }

    /// A snapshot of the counters. O(reasons), without a lock; each number is right by itself.
    #[must_use]
    pub fn stats(&self) -> IngressStats {
        let books = &self.books;
        IngressStats {
            received: books.received.get(),
            received_emergency: books.received_emergency.get(),
            vmio: books.vmio.get(),
            vmio_fragments: books.vmio_fragments.get(),
            control: books.control.get(),
            delivered: books.delivered.get(),
            taken: books.taken.get(),
            untapped: books.untapped.get(),
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

    pub(crate) const fn vlan(&self) -> Option<VlanId> {
        self.vlan
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
            .first_chunk::<ETHERNET_HEADER>()
            .is_some_and(|header| header[0] & 1 == 0 && header[..6] != hardware_addr)
    }

    fn classify(&self, frame: &[u8]) -> Class {
        match self.link {
            Link::Ethernet(_) => class::classify(frame, self.flows),
            Link::Ip => class::classify_ip(frame, self.flows),
        }
    }

    fn classify_outgoing(&self, frame: &[u8]) -> Class {
        match self.link {
            Link::Ethernet(_) => class::classify_untagged(frame, self.vlan, self.flows),
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
            Err((None, skb)) => self.hand_up(skb, Class::Vmio, &[&self.books.vmio]),
            Err((Some(reason), skb)) => self.dropped(skb, Class::Vmio, reason),
        }
    }

    /// To the swap stack with it.
    fn hand_up(&self, mut skb: Skb<'m>, class: Class, counters: &[&Counter]) -> Verdict<'m> {
        let stripped = match self.link {
            Link::Ethernet(_) => strip_tag(&mut skb, self.vlan),
            Link::Ip => Ok(()),
        };
        match stripped {
            Ok(()) => {
                self.count(|_, writer| counters.iter().for_each(|c| c.count(writer)));
                Verdict::Swap(skb)
            }
            Err(_) => self.dropped(skb, class, DropReason::SharedTag),
        }
    }

    fn dropped(&self, skb: Skb<'m>, class: Class, reason: DropReason) -> Verdict<'m> {
        Verdict::Dropped(self.discard(skb, class, reason))
    }

    fn discard(&self, skb: Skb<'m>, class: Class, reason: DropReason) -> DropReason {
        drop(skb);
        self.count_drop(class, reason);
        reason
    }

    fn count_drop(&self, class: Class, reason: DropReason) {
        let vmio = class.serves_vm() || class == Class::Fragment { vmio: true };
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

/// Moves the addresses over a priority tag, or that of the stack's own VLAN.
fn strip_tag(skb: &mut Skb<'_>, vlan: Option<VlanId>) -> Result<(), SkbError> {
    let ours = |number| number == 0 || vlan.is_some_and(|vlan| vlan.get() == number);
    if tag_number(skb.data()).is_some_and(ours) {
        skb.try_data_mut()?
            .copy_within(..ETHERNET_HEADER - 2, VLAN_TAG);
        skb.skip(VLAN_TAG)?;
    }
    Ok(())
}

/// Moves the addresses to the front, and writes the tag behind them.
fn insert_tag(skb: &mut Skb<'_>, vlan: VlanId) -> Result<(), SkbError> {
    const ADDRESSES: usize = ETHERNET_HEADER - 2;
    if skb.len() < ETHERNET_HEADER {
        return Err(SkbError::TooShort);
    }
    skb.push(VLAN_TAG)?;
    let frame = skb.try_data_mut()?;
    frame.copy_within(VLAN_TAG..VLAN_TAG + ADDRESSES, 0);
    frame[ADDRESSES..ADDRESSES + 2].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
    frame[ADDRESSES + 2..ADDRESSES + VLAN_TAG].copy_from_slice(&vlan.get().to_be_bytes());
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
