//! A tap whose reader sleeps: it keeps clones of what it is offered, as many as its queue takes.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use netreserve::{Class, Consumer, Keeps, Policy, Sees, Skb};

use crate::verdict::locked;

/// Packets in its queue.
const QUEUE: usize = 6;

/// What it asks for can be changed before it is registered.
#[derive(Default)]
pub(super) struct Tap<'m> {
    modest: AtomicBool,
    held: Mutex<Vec<Skb<'m>>>,
}

impl Tap<'_> {
    /// From now on it asks for what it may have.
    pub(super) fn ask_for_less(&self) {
        self.modest.store(true, Ordering::Relaxed);
    }

    /// Its reader wakes up. Nothing of the queue is left, not even its room: the tap is never dropped.
    pub(super) fn read(&self) {
        drop(core::mem::take(&mut *locked(&self.held)));
    }

    pub(super) fn holds_emergency(&self) -> bool {
        locked(&self.held).iter().any(Skb::is_emergency)
    }
}

impl<'m> Consumer<'m> for Tap<'m> {
    fn policy(&self) -> Policy {
        Policy {
            sees: match self.modest.load(Ordering::Relaxed) {
                true => Sees::Foreign,
                false => Sees::All,
            },
            keeps: Keeps::Skbs,
        }
    }

    fn take(&self, mut skb: Skb<'m>, _: Class) -> Result<(), Skb<'m>> {
        let mut held = locked(&self.held);
        if held.len() < QUEUE {
            held.extend(skb.try_clone());
        }
        Err(skb)
    }
}
