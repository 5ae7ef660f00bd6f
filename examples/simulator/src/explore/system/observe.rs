//! How the system looks from outside: as a number, and in words.

use core::fmt::Write;
use core::iter;
use std::collections::VecDeque;

use mempool::{CacheStats, FRAME_SIZE, Gfp};
use netreserve::Skb;

use super::super::choice::Choice;
use super::super::digest::Digest;
use super::super::seconds;
use super::{Parts, System, strange_packet};
use crate::kernel::{earliest, time};
use crate::packet;

impl System<'_, '_> {
    /// A number for everything that decides what can still happen. The module's documentation
    /// says what of it is seen and what is concluded.
    pub(in super::super) fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest.value((self.now, self.phase, self.left, self.kernel_due, self.idle));
        digest.value((self.kernel_next, self.host_next, &self.mapped));
        digest.number(self.hog.as_ref().map_or(usize::MAX, Vec::len));
        // The wire and the server.
        digest.frames(&self.to_machine);
        digest.frames(&self.to_server);
        self.calls.iter().for_each(|(_, name)| digest.value(name));
        self.peer.digest(&mut digest);
        digest.value((self.executed, self.host.boot()));
        // The card and the buffers.
        self.port.borrow().digest(&mut digest);
        let device = &self.device().inner;
        digest.debug(device);
        self.digest_slabs(&mut digest);
        let (zone, cache) = (self.parts.zone.stats(), self.parts.cache.stats());
        digest.value((zone.free, zone.reserve, zone.reserve_in_use));
        let slabs = (cache.slabs, cache.reserve_slabs);
        digest.value((cache.in_use, cache.reserve_objects, slabs));
        digest.value(self.parts.nodes.each_ref().map(|node| node.usage()));
        digest.value(self.parts.sockets.stats().queued);
        // The swap path.
        let pager = self.pager.stats();
        digest.value((
            pager.resident,
            pager.dirty,
            pager.writeback,
            pager.in_flight,
        ));
        digest.value((
            pager.waiting,
            pager.pages_out,
            pager.pages_in,
            pager.write_failures,
        ));
        let area = self.pager.area();
        digest.debug(&area.stats());
        digest.debug(&area.space().inner);
        digest.finish()
    }

    /// Which buffers share a slab, and which slabs come next: that decides when frames come back.
    /// Free objects are taken one after the other and given back the other way round, which leaves
    /// everything as it was. The slabs' addresses mean nothing, but for which are the same.
    fn digest_slabs(&self, digest: &mut Digest) {
        let Parts { zone, cache, .. } = self.parts;
        if self.odd_slabs {
            return;
        }
        // So that no slab is made.
        let frames: Vec<_> = iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect();
        let CacheStats {
            in_use,
            reserve_objects,
            slabs,
            reserve_slabs,
            ..
        } = cache.stats();
        let ordinary = 2 * slabs + reserve_objects - in_use;
        let reserve = 2 * reserve_slabs - reserve_objects;
        let gfp = self.parts.token.gfp(Gfp::ATOMIC);
        let taken = (0..ordinary + reserve).map_while(|_| cache.alloc(gfp).ok());
        let mut taken: Vec<_> = taken.collect();
        let card = self.device().inner.nic();
        let free = taken.iter().map(|object| object.as_ptr());
        let rings = card
            .rx
            .iter()
            .chain(&card.tx)
            .map(|skb| skb.data().as_ptr());
        // Packets of the reserve do not get into sockets, if all is well.
        let queued = card
            .strange
            .iter()
            .filter(|(_, emergency)| !emergency || self.odd_sockets);
        let queued = queued.map(|(address, _)| *address);
        let mut known = Vec::new();
        for address in free.chain(rings).chain(queued) {
            let slab = address as usize / FRAME_SIZE;
            let number = known.iter().position(|known| *known == slab);
            digest.number(number.unwrap_or(known.len()));
            if number.is_none() {
                known.push(slab);
            }
        }
        for ring in [&card.rx, &card.tx] {
            digest.number(ring.len());
            ring.iter().for_each(|skb| digest.value(skb.is_emergency()));
        }
        while taken.pop().is_some() {}
        drop(frames);
    }

    /// What a choice means now.
    pub(in super::super) fn describe(&self, choice: Choice) -> String {
        let oldest = |frames: &VecDeque<Vec<u8>>| {
            packet::describe(frames.front().map_or(&[], Vec::as_slice))
        };
        match choice {
            Choice::ToServer => format!("the server receives {}", oldest(&self.to_server)),
            Choice::Execute => "the server executes the call that it has read".into(),
            Choice::Sent => {
                let port = self.port.borrow();
                format!("the card has sent {}", oldest(&port.sending))
            }
            Choice::ToMachine => self.arrival(&oldest(&self.to_machine)),
            Choice::Kernel => "the kernel runs".into(),
            Choice::Meanwhile => {
                let sent = oldest(&self.port.borrow().sending);
                format!("the kernel runs, and meanwhile the card has sent {sent}")
            }
            Choice::Time | Choice::Early => {
                let next = earliest(self.kernel_next, self.host_next);
                let pass = seconds(next.map_or(0, |next| next.saturating_sub(self.now)));
                match choice {
                    Choice::Time => format!("everybody waits: {pass} pass"),
                    _ => format!("** nothing moves for {pass}: a timer goes off early"),
                }
            }
            Choice::LoseToServer => format!("** lost: {}", oldest(&self.to_server)),
            Choice::LoseToMachine => format!("** lost: {}", oldest(&self.to_machine)),
            Choice::Foreign => {
                format!(
                    "** a stranger: {}",
                    self.arrival(&packet::describe(&strange_packet()))
                )
            }
            Choice::Reboot => {
                let lost = self.host.servers[0].unstable_bytes();
                format!("** the server reboots, and forgets {lost} unstable bytes")
            }
        }
    }

    fn arrival(&self, what: &str) -> String {
        let port = self.port.borrow();
        match port.waiting.len() < port.posted {
            true => format!("the card receives {what}"),
            false => format!("the card has no buffer, and loses {what}"),
        }
    }

    /// How the machine's memory stands.
    pub(in super::super) fn memory(&self) -> String {
        let (zone, port) = (self.parts.zone.stats(), self.port.borrow());
        let held = self.parts.cache.stats();
        let card = self.device().inner.nic();
        let emergency =
            |ring: &VecDeque<Skb<'_>>| ring.iter().filter(|skb| skb.is_emergency()).count();
        format!(
            "{} of {} reserve frames used, {} free; {} buffers posted ({} emergency), {} being sent \
             ({}), {} in sockets{}; {} emergency buffers in all",
            zone.reserve_in_use,
            zone.reserve,
            zone.free,
            port.posted,
            emergency(&card.rx),
            card.tx.len(),
            emergency(&card.tx),
            self.parts.sockets.stats().queued,
            if self.device().inner.more_pending() {
                ", 1 received and without a buffer to answer it"
            } else {
                ""
            },
            held.reserve_objects,
        )
    }

    /// Who waits for whom.
    pub(in super::super) fn hangs(&self) -> String {
        let mut text = format!("after {}: ", seconds(self.now));
        let stall = self.pager.stall(time(self.now));
        match stall {
            Some(stall) => write!(text, "{stall}"),
            None => write!(text, "{:?}, no fault waits", self.phase),
        }
        .expect("a string takes everything");
        format!("{text}; {}", self.memory())
    }
}
