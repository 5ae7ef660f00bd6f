//! The queue of a back end that serves one request at a time. It owns the requests until they are
//! served; it never touches their frames and knows no medium.

use crate::{Instant, IoClass, SwapIo, Ticket};

/// A request that waits.
#[derive(Debug)]
pub(super) struct Request<F> {
    pub(super) ticket: Ticket,
    pub(super) io: SwapIo<F>,
    since: Instant,
    /// As it was handed in, or what it rose to: the request itself comes back as it was.
    class: IoClass,
    cancelled: bool,
}

/// What becomes of the request that leaves the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Serve,
    Cancelled,
    /// Its deadline has passed.
    Late,
}

/// Up to `N` requests, by class (S8) and then by age.
#[derive(Debug)]
pub(super) struct Queue<F, const N: usize> {
    /// In the order of their admission.
    waiting: heapless::Vec<Request<F>, N>,
    next_ticket: u32,
}

impl<F, const N: usize> Queue<F, N> {
    pub(super) const fn new() -> Self {
        Queue {
            waiting: heapless::Vec::new(),
            next_ticket: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The request comes back if the queue is full.
    pub(super) fn push(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, SwapIo<F>> {
        let ticket = Ticket(self.next_ticket);
        let request = Request {
            ticket,
            class: io.class,
            io,
            since: now,
            cancelled: false,
        };
        self.waiting.push(request).map_err(|request| request.io)?;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        Ok(ticket)
    }

    /// The next request to leave: one that is over anyway, or else the oldest of the highest class.
    /// `O(N)`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Request<F>, Verdict)> {
        let late = |request: &Request<F>| request.io.deadline.is_some_and(|at| at <= now);
        let over = |request: &Request<F>| request.cancelled || late(request);
        let index = match self.waiting.iter().position(over) {
            Some(index) => index,
            None => self.most_urgent()?,
        };
        let request = self.waiting.remove(index);
        let verdict = if request.cancelled {
            Verdict::Cancelled
        } else if late(&request) {
            Verdict::Late
        } else {
            Verdict::Serve
        };
        Some((request, verdict))
    }

    fn most_urgent(&self) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate();
        // Of equals `max_by_key` takes the last, which is the oldest in this direction.
        let most = waiting.rev().max_by_key(|(_, request)| request.class);
        most.map(|(index, _)| index)
    }

    /// Whatever waits can be served at once: since when something could.
    pub(super) fn since(&self) -> Option<Instant> {
        self.waiting.iter().map(|request| request.since).min()
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        if let Some(request) = self.find(ticket) {
            request.cancelled = true;
        }
    }

    pub(super) fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        if let Some(request) = self.find(ticket) {
            request.class = request.class.max(class);
        }
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Request<F>> {
        self.waiting.iter_mut().find(|r| r.ticket == ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameList, IoOp, Slot};

    const NOW: Instant = Instant::from_micros(10);

    fn io(slot: u32, class: IoClass) -> SwapIo<[u8; 1]> {
        SwapIo::new(IoOp::Read, Slot(slot), class, FrameList::new())
    }

    fn order(queue: &mut Queue<[u8; 1], 4>) -> [(u32, Verdict); 4] {
        [(); 4].map(|()| {
            let (request, verdict) = queue.pop(NOW).unwrap();
            (request.io.slot.0, verdict)
        })
    }

    #[test]
    fn s8_the_oldest_of_the_highest_class_is_next() {
        let mut queue = Queue::<_, 4>::new();
        let classes = [
            IoClass::Writeback,
            IoClass::Demand,
            IoClass::Prefetch,
            IoClass::Demand,
        ];
        for (slot, class) in (0..).zip(classes) {
            queue.push(io(slot, class), NOW).unwrap();
        }
        let refused = queue.push(io(9, IoClass::Demand), NOW).unwrap_err();
        assert_eq!(refused.slot, Slot(9));
        assert_eq!(
            order(&mut queue),
            [1, 3, 2, 0].map(|slot| (slot, Verdict::Serve))
        );
        assert!(queue.is_empty() && queue.since().is_none());
    }

    #[test]
    fn s8_a_class_rises_and_never_falls_and_the_request_comes_back_as_it_was() {
        let mut queue = Queue::<_, 4>::new();
        queue.push(io(0, IoClass::Demand), NOW).unwrap();
        let raised = queue.push(io(1, IoClass::Writeback), NOW).unwrap();
        queue.push(io(2, IoClass::Reclaim), NOW).unwrap();
        let kept = queue.push(io(3, IoClass::Demand), NOW).unwrap();
        queue.expedite(raised, IoClass::Demand);
        queue.expedite(kept, IoClass::Writeback);
        queue.expedite(Ticket(77), IoClass::Demand);

        let classes = [0, 1, 3, 2].map(|slot| {
            let (request, _) = queue.pop(NOW).unwrap();
            assert_eq!(request.io.slot, Slot(slot));
            request.io.class
        });
        assert_eq!(classes[1], IoClass::Writeback);
    }

    #[test]
    fn s3_what_is_over_leaves_first_and_is_not_served() {
        let mut queue = Queue::<_, 4>::new();
        queue.push(io(0, IoClass::Demand), NOW).unwrap();
        let ticket = queue.push(io(1, IoClass::Writeback), NOW).unwrap();
        let later = Instant::from_micros(11);
        queue.push(io(2, IoClass::Writeback).by(NOW), NOW).unwrap();
        queue.push(io(3, IoClass::Reclaim).by(later), NOW).unwrap();
        queue.cancel(ticket);
        queue.cancel(Ticket(77));

        let ends = [
            (1, Verdict::Cancelled),
            (2, Verdict::Late),
            (0, Verdict::Serve),
            (3, Verdict::Serve),
        ];
        assert_eq!(order(&mut queue), ends);
    }
}
