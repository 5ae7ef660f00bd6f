//! Which faults are in force.

use crate::scenario::{Fault, FaultKind, Refusal};

/// The faults that have begun and not ended, by their place in the script.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    active: Vec<(usize, FaultKind)>,
}

impl Weather {
    pub(crate) fn begin(&mut self, number: usize, fault: Fault) {
        self.active.push((number, fault.kind));
    }

    pub(crate) fn end(&mut self, number: usize) {
        self.active.retain(|(active, _)| *active != number);
    }

    pub(crate) fn is_active(&self, number: usize) -> bool {
        self.active.iter().any(|(active, _)| *active == number)
    }

    fn any(&self, kind: FaultKind) -> bool {
        self.active.iter().any(|(_, active)| *active == kind)
    }

    /// The worst of what `severity` makes of the faults in force.
    fn worst<N: Ord + Default>(&self, severity: impl Fn(FaultKind) -> Option<N>) -> N {
        let active = self.active.iter().filter_map(|(_, kind)| severity(*kind));
        active.max().unwrap_or_default()
    }

    /// Whether nothing gets through to or from the card of that number.
    pub(crate) fn partition(&self, card: usize) -> bool {
        let cut = |kind| match kind {
            FaultKind::Partition => true,
            FaultKind::Away(away) => usize::from(away) == card,
            _ => false,
        };
        self.active.iter().any(|(_, kind)| cut(*kind))
    }

    pub(crate) fn loss(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::Loss(permille) => Some(permille),
            _ => None,
        })
    }

    pub(crate) fn duplicate(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::Duplicate(permille) => Some(permille),
            _ => None,
        })
    }

    pub(crate) fn corrupt(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::Corrupt(permille) => Some(permille),
            _ => None,
        })
    }

    pub(crate) fn jitter(&self) -> u32 {
        self.worst(|kind| match kind {
            FaultKind::Jitter(micros) => Some(micros),
            _ => None,
        })
    }

    pub(crate) fn stall(&self) -> bool {
        self.any(FaultKind::Stall)
    }

    pub(crate) fn down(&self) -> bool {
        self.any(FaultKind::Reboot)
    }

    pub(crate) fn slow(&self) -> u32 {
        self.worst(|kind| match kind {
            FaultKind::Slow(micros) => Some(micros),
            _ => None,
        })
    }

    pub(crate) fn short(&self) -> bool {
        self.any(FaultKind::Short)
    }

    pub(crate) fn unstable(&self) -> bool {
        self.any(FaultKind::Unstable)
    }

    pub(crate) fn twice(&self) -> bool {
        self.any(FaultKind::Twice)
    }

    /// The refusal that began last.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let refusals = self.active.iter().rev();
        refusals
            .filter_map(|(_, kind)| match kind {
                FaultKind::Refuse(refusal) => Some(*refusal),
                _ => None,
            })
            .next()
    }

    pub(crate) fn alloc_fails(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::AllocFails(permille) => Some(permille),
            _ => None,
        })
    }

    pub(crate) fn interrupts(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::Interrupts(percent) => Some(percent),
            _ => None,
        })
    }

    pub(crate) fn busy(&self) -> u16 {
        self.worst(|kind| match kind {
            FaultKind::Busy(permille) => Some(permille),
            _ => None,
        })
    }
}
