//! A transmit reserve that is raised while the machine runs, and lowered again.

use mempool::Budget;

use super::Kernel;

impl<M> Kernel<'_, '_, M> {
    /// Raises the limit of the first transmit reserve (N4: the reserve grows first, or it fails).
    pub(crate) fn raise(&mut self, packets: usize) {
        if self.raised.is_none() && self.limit_transmit(packets) {
            self.raised = Some(packets);
        }
    }

    /// The raise is over.
    pub(crate) fn end_raise(&mut self) {
        if self.raised.is_some() {
            self.raised = Some(0);
        }
    }

    pub(super) fn lower(&mut self) {
        // While more is in use than the old limit allows, it is tried again.
        if self.raised == Some(0) && self.limit_transmit(0) {
            self.raised = None;
        }
    }

    fn limit_transmit(&mut self, more: usize) -> bool {
        let (size, order) = self.parts.machine.skb();
        let frames = Budget::objects(more, size, order).frames();
        let limit = self.parts.machine.limits()[1] + more * size;
        let node = self.swappers[0].nodes[1];
        let before = (node.limit(), node.pages());
        let done = node.set_limit(limit, frames).is_ok();
        let after = (node.limit(), node.pages());
        let expected = if done { (limit, frames) } else { before };
        self.parts.findings.check(after == expected, "M5", || {
            format!("a change of limit ended with {after:?} in place of {expected:?}")
        });
        done
    }
}
