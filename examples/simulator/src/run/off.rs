//! Mechanisms that are switched off.

use crate::Mechanism;

/// The mechanism that is off, if one is.
pub(super) struct Off(pub(super) Option<Mechanism>);

impl Off {
    pub(super) fn mempool(&self, ablate: impl FnOnce(mempool::Mechanism)) {
        if let Some(Mechanism::Mempool(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    pub(super) fn netreserve(&self, ablate: impl FnOnce(netreserve::Mechanism)) {
        if let Some(Mechanism::Netreserve(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    pub(super) fn swapspace(&self, ablate: impl FnOnce(swapspace::Mechanism)) {
        if let Some(Mechanism::Swapspace(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    pub(super) fn nfs_swap(&self, ablate: impl FnOnce(nfs_swap::Mechanism)) {
        if let Some(Mechanism::NfsSwap(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }
}
