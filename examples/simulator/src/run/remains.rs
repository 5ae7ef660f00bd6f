//! What must be left of a machine that is off: nothing that is still in use.

use mempool::{ReserveNode, Zone};
use netreserve::FlowTable;

use crate::verdict::Findings;

/// The machine, switched off.
pub(super) struct Remains<'a, 'z> {
    pub(super) zones: &'a [Zone<'z>; 2],
    pub(super) nodes: &'a [[ReserveNode<'z>; 2]],
    pub(super) flows: &'a FlowTable<'z>,
    pub(super) findings: &'a Findings,
}

impl Remains<'_, '_> {
    pub(super) fn check(&self) {
        for zone in self.zones {
            let stats = zone.stats();
            self.findings.check(stats.free == stats.total, "leak", || {
                let missing = stats.total - stats.free;
                format!("{missing} of {} frames did not come back", stats.total)
            });
            self.findings.check(stats.reserve_in_use == 0, "M3", || {
                format!(
                    "{} frames are tagged, and nobody has them",
                    stats.reserve_in_use
                )
            });
        }
        for node in self.nodes.iter().flatten() {
            self.findings.check(node.usage() == 0, "M6", || {
                format!(
                    "{} bytes are still charged to '{}'",
                    node.usage(),
                    node.name()
                )
            });
        }
        self.findings.check(!self.flows.any(), "S7", || {
            "a flow is still tagged, and there is no connection".into()
        });
    }
}
