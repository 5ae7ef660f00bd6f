//! Who else wants to see packets: taps, queues to user space, forwarding. What they may have is settled
//! when they are registered.

use core::fmt;

use crate::{Class, Skb};

/// Something that receives frames besides the swap stack and the sockets.
///
/// What a kernel has of this kind, and what it would say in its [policy](Consumer::policy):
///
/// | in Linux | [`Sees`] | [`Keeps`] |
/// |---|---|---|
/// | a counter, a filter program | `All` | `Nothing` |
/// | `AF_PACKET`, copying into its ring | `All` | `Copies` |
/// | `AF_PACKET`, with clones in its queue | `Foreign` | `Skbs` |
/// | `NFQUEUE`, whose verdict is that of a process | `Foreign` | `Skbs` |
/// | a bridge, IP forwarding, `act_mirred` | `Foreign` | `Skbs` |
///
/// None is ever shown an emergency skb (N2), nor given one of VMIO, whatever its memory: a reply of the
/// server that waits in a queue for a process whose memory is swapped out waits for itself. Who keeps
/// skbs and wants to see everything is refused when it is [registered](crate::Ingress::register).
///
/// The methods are called where packets are received, between interrupt and stack: they must not wait,
/// and must not allocate memory for copies but as best-effort callers do (`Gfp::NOMEMALLOC`, M7). No lock
/// is held meanwhile.
///
/// ```
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// use netreserve::{Class, Consumer, Keeps, Policy, Sees};
///
/// #[derive(Default)]
/// struct Counter(AtomicUsize);
///
/// impl Consumer<'_> for Counter {
///     fn policy(&self) -> Policy {
///         Policy { sees: Sees::All, keeps: Keeps::Nothing }
///     }
///
///     fn look(&self, frame: &[u8], _: Class) {
///         self.0.fetch_add(frame.len(), Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Consumer<'m>: Sync {
    /// What it wants. Asked once, when it is registered.
    fn policy(&self) -> Policy;

    /// Shows a frame to a consumer that keeps [nothing](Keeps::Nothing), or [copies](Keeps::Copies).
    fn look(&self, _: &[u8], _: Class) {}

    /// Offers an skb to a consumer that keeps [skbs](Keeps::Skbs). One that only taps returns it, and may
    /// keep a [clone](Skb::try_clone).
    ///
    /// # Errors
    ///
    /// The skb goes on: to the next consumer, a socket, another stack.
    fn take(&self, skb: Skb<'m>, _: Class) -> Result<(), Skb<'m>> {
        Err(skb)
    }
}

/// What a [`Consumer`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Policy {
    /// Which frames.
    pub sees: Sees,
    /// What is left of them when it returns.
    pub keeps: Keeps,
}

/// Which frames a [`Consumer`] sees, of those in ordinary memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Sees {
    /// What does not serve the VM.
    Foreign,
    /// VMIO and its control plane as well.
    All,
}

/// What a [`Consumer`] keeps when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Keeps {
    /// Nothing: it has looked.
    Nothing,
    /// Copies in ordinary memory of its own.
    Copies,
    /// The skb itself, or a clone, for as long as it likes.
    Skbs,
}

/// Names a registered consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConsumerId(pub(crate) usize);

/// Why a consumer is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ConsumerError {
    /// It would keep skbs that serve the VM: it must see [foreign](Sees::Foreign) frames alone, or take
    /// [copies](Keeps::Copies).
    KeepsVmio,
    /// Every slot is taken.
    Full,
}

impl fmt::Display for ConsumerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConsumerError::KeepsVmio => {
                "it would keep packets that serve the VM: let it take copies, or see others alone"
            }
            ConsumerError::Full => "every slot for consumers is taken",
        })
    }
}

impl core::error::Error for ConsumerError {}

impl Policy {
    /// Whether such a consumer can be had.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::KeepsVmio`].
    pub const fn check(self) -> Result<(), ConsumerError> {
        match self {
            Policy {
                sees: Sees::All,
                keeps: Keeps::Skbs,
            } => Err(ConsumerError::KeepsVmio),
            _ => Ok(()),
        }
    }
}

/// A place for a consumer: what the storage of
/// [`Ingress::with_consumers`](crate::Ingress::with_consumers) consists of.
#[derive(Clone, Copy, Default)]
pub struct ConsumerSlot<'m>(pub(crate) Option<(&'m dyn Consumer<'m>, Policy)>);

impl ConsumerSlot<'_> {
    /// Nobody is in it.
    pub const EMPTY: Self = ConsumerSlot(None);
}

impl fmt::Debug for ConsumerSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.0.map(|(_, policy)| policy);
        f.debug_tuple("ConsumerSlot").field(&policy).finish()
    }
}
