//! A driver for `embassy-net` over a reserve: the one room that knows that stack's traits, and the only
//! one with wakers.

use core::fmt;
use core::task::{Context, Waker};

use embassy_net_driver::{
    self as driver, Capabilities, Checksum, ChecksumCapabilities, Driver, HardwareAddress,
    LinkState,
};
use lock_api::Mutex;
use mempool::{ChargeWaiters, CriticalSection};

use crate::{ChecksumOffload, Medium, Nic, Offload, Reserved, RxToken, TxToken};

/// Where the network stack sleeps until there is work for it.
///
/// Three wake it: the card's interrupt handler calls [`wake`](NicWaker::wake), for frames that came,
/// for frames that were sent, and for the link. The reserve does, when a charge ends that the driver was
/// refused: give the waker to its nodes, it is their [`ChargeWaiters`]. And whoever makes room in ordinary
/// memory after that was exhausted does, when no flow needs the reserve and the ring may have run empty.
///
/// ```
/// use mempool::ReserveNode;
/// use netreserve::NicWaker;
///
/// static WAKER: NicWaker = NicWaker::new();
///
/// let rx: ReserveNode<'_> = ReserveNode::with_waiters("rx", &WAKER);
/// // … and in the interrupt handler:
/// WAKER.wake();
/// ```
pub struct NicWaker {
    sleeper: Mutex<CriticalSection, Option<Waker>>,
}

impl NicWaker {
    /// Nobody sleeps there.
    #[must_use]
    pub const fn new() -> Self {
        NicWaker {
            sleeper: Mutex::new(None),
        }
    }

    /// Wakes the stack, if it sleeps. From anywhere, an interrupt included; O(1).
    pub fn wake(&self) {
        // Foreign code runs without the lock.
        let sleeper = self.sleeper.lock().take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    fn register(&self, waker: &Waker) {
        let known = |sleeper: &Option<Waker>| sleeper.as_ref().is_some_and(|s| s.will_wake(waker));
        if !known(&self.sleeper.lock()) {
            let sleeper = Some(waker.clone());
            let before = core::mem::replace(&mut *self.sleeper.lock(), sleeper);
            drop(before);
        }
    }
}

impl Default for NicWaker {
    fn default() -> Self {
        Self::new()
    }
}

impl ChargeWaiters for NicWaker {
    fn released(&self) {
        self.wake();
    }
}

impl fmt::Debug for NicWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NicWaker").finish_non_exhaustive()
    }
}

/// A driver for `embassy-net`, over a card, a pool and the drop ladder: [`Reserved`], and who wakes it.
///
/// The stack is polled when something has happened, and not otherwise: whenever the driver has nothing
/// to give, the waker of its task is with the [`NicWaker`]. After 64 frames of a flood the driver wakes the
/// task itself, so that others come in between.
///
/// Give paging a stack of its own, and tag its connections before their first packet: `embassy-net` chooses
/// the local port of the first one that connects by the seed that it was given (1025 plus the rest of a
/// division by 64510), and the next ones from there on.
#[derive(Debug)]
pub struct ReservedDriver<'m, N> {
    device: Reserved<'m, N>,
    waker: &'m NicWaker,
}

impl<'m, N: Nic<'m>> ReservedDriver<'m, N> {
    /// A driver over `device`, whose card's interrupts reach `waker`.
    pub const fn new(device: Reserved<'m, N>, waker: &'m NicWaker) -> Self {
        ReservedDriver { device, waker }
    }

    /// The device.
    pub fn device(&self) -> &Reserved<'m, N> {
        &self.device
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut Reserved<'m, N> {
        &mut self.device
    }
}

impl<'m, N: Nic<'m>> Driver for ReservedDriver<'m, N> {
    type RxToken<'a>
        = RxToken<'a, 'm>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, 'm, N>
    where
        Self: 'a;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        // First, so that what happens from now on is not missed.
        self.waker.register(cx.waker());
        if !self.device.advance() {
            if self.device.weight_exhausted() {
                cx.waker().wake_by_ref();
            }
            return None;
        }
        Some(self.device.tokens())
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Self::TxToken<'_>> {
        self.waker.register(cx.waker());
        self.device.poll_transmit()
    }

    fn link_state(&mut self, cx: &mut Context<'_>) -> LinkState {
        self.waker.register(cx.waker());
        if self.device.nic_mut().link_up() {
            LinkState::Up
        } else {
            LinkState::Down
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = self.device.max_frame();
        capabilities.max_burst_size = self.device.nic().max_burst();
        capabilities.checksum = checksums(self.device.nic().checksum_offload());
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        match self.device.medium() {
            Medium::Ethernet => HardwareAddress::Ethernet(self.device.nic().hardware_addr()),
            Medium::Ip => HardwareAddress::Ip,
        }
    }
}

impl driver::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        self.modify(f)
    }
}

impl<'m, N: Nic<'m>> driver::TxToken for TxToken<'_, 'm, N> {
    /// # Panics
    ///
    /// If `len` exceeds the `max_transmission_unit` of the driver's capabilities.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.send(len, f)
    }
}

/// What is left to do for the stack.
fn checksums(offload: ChecksumOffload) -> ChecksumCapabilities {
    let left = |offload: Offload| match (offload.rx, offload.tx) {
        (false, false) => Checksum::Both,
        (false, true) => Checksum::Rx,
        (true, false) => Checksum::Tx,
        (true, true) => Checksum::None,
    };
    let mut capabilities = ChecksumCapabilities::default();
    capabilities.ipv4 = left(offload.ipv4);
    capabilities.udp = left(offload.udp);
    capabilities.tcp = left(offload.tcp);
    capabilities.icmpv4 = left(offload.icmpv4);
    capabilities.icmpv6 = left(offload.icmpv6);
    capabilities
}

#[cfg(test)]
mod tests;
