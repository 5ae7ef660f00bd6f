//! The books of a [`Reassembly`](super::Reassembly).

use core::time::Duration;

use super::parse::{Fragment, Key};
use super::{ReassemblyError, ReassemblyLimits, ReassemblyStats};
use crate::Skb;
use crate::ablation::{Ablation, Mechanism};
use crate::lru::{Kind, Lru, LruSlot};
use crate::probe::{Keyed, hash_words};

const NIL: u32 = u32::MAX;

/// Room for one fragment in a [`Reassembly`](super::Reassembly).
#[derive(Debug)]
pub struct FragmentSlot<'m> {
    skb: Option<Skb<'m>>,
    /// Bytes of payload in front of it, and up to its end.
    offset: usize,
    end: usize,
    /// Bytes of headers in its skb.
    header: usize,
    next: u32,
}

impl FragmentSlot<'_> {
    /// No fragment is in it.
    pub const EMPTY: Self = FragmentSlot {
        skb: None,
        offset: 0,
        end: 0,
        header: 0,
        next: NIL,
    };
}

/// A datagram of which fragments came: what an [`LruSlot`] of a [`Reassembly`](super::Reassembly) holds.
#[derive(Debug)]
pub struct DatagramEntry {
    key: Key,
    born: Duration,
    vmio: bool,
    /// It has ended, and is remembered so that what is left of it is refused.
    dead: bool,
    /// By offset.
    list: List,
    bytes: usize,
    received: usize,
    total: Option<usize>,
    first: Option<Fragment>,
}

impl Keyed for DatagramEntry {
    type Key = Key;

    fn key(&self) -> Key {
        self.key
    }

    fn hash(key: Key) -> u32 {
        let fold = |addr: core::net::Ipv6Addr| {
            let [a, b] = [0, 64].map(|shift| (addr.to_bits() >> shift) as u64);
            let sum = a ^ b.rotate_left(7);
            (sum ^ (sum >> 32)) as u32
        };
        let kind = u32::from(key.protocol) << 16 | u32::from(key.vlan);
        hash_words(&[fold(key.source), fold(key.destination), key.id, kind])
    }
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl List {
    const EMPTY: List = List {
        head: NIL,
        tail: NIL,
        len: 0,
    };
}

/// A packet that is complete.
pub(super) struct Reassembly {
    list: List,
    pub(super) count: usize,
    pub(super) payload: usize,
    pub(super) vmio: bool,
}

/// What became of a fragment.
pub(super) enum Step<'m> {
    Taken,
    Complete(Reassembly),
    /// This has to be freed first, and the other pushed again.
    Free {
        doomed: Skb<'m>,
        pushed: Skb<'m>,
    },
    Refused(ReassemblyError, Skb<'m>),
}

pub(super) struct State<'m> {
    datagrams: Lru<'m, DatagramEntry>,
    slots: &'m mut [FragmentSlot<'m>],
    free: u32,
    used: usize,
    bytes: usize,
    /// Evicted, and not freed yet.
    doomed: List,
    doomed_bytes: usize,
    limits: ReassemblyLimits,
    stats: ReassemblyStats,
    ablation: Ablation,
}

impl<'m> State<'m> {
    pub(super) fn new(
        datagrams: &'m mut [LruSlot<DatagramEntry>],
        slots: &'m mut [FragmentSlot<'m>],
        limits: ReassemblyLimits,
    ) -> Self {
        let mut free = NIL;
        for (index, slot) in (0..NIL).zip(slots.iter_mut()) {
            *slot = FragmentSlot {
                next: free,
                ..FragmentSlot::EMPTY
            };
            free = index;
        }
        State {
            datagrams: Lru::new(datagrams),
            slots,
            free,
            used: 0,
            bytes: 0,
            doomed: List::EMPTY,
            doomed_bytes: 0,
            limits: sound(limits),
            stats: ReassemblyStats::default(),
            ablation: Ablation::NONE,
        }
    }

    #[cfg(feature = "ablation")]
    pub(super) fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    pub(super) fn limits(&self) -> ReassemblyLimits {
        self.limits
    }

    pub(super) fn stats(&self) -> ReassemblyStats {
        ReassemblyStats {
            datagrams: self.datagrams.len(),
            fragments: self.used,
            bytes: self.bytes,
            ..self.stats
        }
    }

    pub(super) fn refused(&mut self) {
        self.stats.refused += 1;
    }

    pub(super) fn push(
        &mut self,
        fragment: &Fragment,
        skb: Skb<'m>,
        vmio: bool,
        now: Duration,
    ) -> Step<'m> {
        let admitted = match self.pop_doomed() {
            Some(doomed) => {
                let pushed = skb;
                return Step::Free { doomed, pushed };
            }
            None => self.admit(fragment, &skb, vmio, now),
        };
        let index = match admitted {
            Ok(index) => index,
            Err(error) => {
                self.refused();
                return Step::Refused(error, skb);
            }
        };
        match self.pop_doomed() {
            Some(doomed) => Step::Free {
                doomed,
                pushed: skb,
            },
            None => self.enter(index, fragment, skb, vmio, now),
        }
    }

    /// Whether the fragment can be taken, as part of which datagram; makes room for it.
    fn admit(
        &mut self,
        fragment: &Fragment,
        skb: &Skb<'m>,
        vmio: bool,
        now: Duration,
    ) -> Result<Option<u32>, ReassemblyError> {
        self.expire(now);
        let found = self.datagrams.find(fragment.key);
        let index = found.filter(|_| !fragment.is_atomic());
        let known = index.and_then(|index| self.datagrams.get(index));
        let serves = vmio || known.is_some_and(|datagram| datagram.vmio);
        if skb.is_emergency() && !serves {
            return Err(ReassemblyError::Emergency);
        }
        if let Some(index) = index {
            match self.check(index, fragment) {
                Ok(()) if serves => self.promote(index, now),
                Ok(()) => {}
                Err(ReassemblyError::Duplicate) => return Err(ReassemblyError::Duplicate),
                Err(error) => {
                    self.kill(index);
                    return Err(error);
                }
            }
        } else if !fragment.is_atomic() && self.datagrams.len() == self.datagrams.capacity() {
            let victim = self.victim(Kind::Common, None);
            let victim = victim.or_else(|| self.victim(Kind::Vmio, None).filter(|_| serves));
            self.evict(victim.ok_or(ReassemblyError::Full)?);
        }
        if !self.make_room(index, serves, skb.truesize()) {
            if let Some(index) = index {
                self.bury(index);
            }
            return Err(ReassemblyError::Full);
        }
        Ok(index)
    }

    /// Whether the fragment goes with the others of its datagram.
    fn check(&self, index: u32, fragment: &Fragment) -> Result<(), ReassemblyError> {
        let Some(datagram) = self.datagrams.get(index) else {
            return Ok(());
        };
        let contradictory = Err(ReassemblyError::Contradictory);
        if datagram.dead {
            return contradictory;
        }
        let (start, end) = (fragment.offset, fragment.end());
        let last = self.slot(datagram.list.tail).map_or(0, |slot| slot.end);
        if last > start {
            let mut at = datagram.list.head;
            while let Some(slot) = self.slot(at) {
                if (slot.offset, slot.end) == (start, end) {
                    return Err(ReassemblyError::Duplicate);
                }
                if slot.offset < end && start < slot.end {
                    return contradictory;
                }
                at = slot.next;
            }
        }
        let total = match (datagram.total, fragment.more) {
            (Some(total), true) if end >= total => return contradictory,
            (Some(_), false) => return contradictory,
            (None, false) if end < last => return contradictory,
            (total, true) => total,
            (None, false) => Some(end),
        };
        let first = match start {
            0 => Some(fragment),
            _ => datagram.first.as_ref(),
        };
        if let (Some(total), Some(first)) = (total, first)
            && !first.fits(total)
        {
            return contradictory;
        }
        if datagram.list.len >= self.limits.fragments {
            return Err(ReassemblyError::TooManyFragments);
        }
        Ok(())
    }

    /// Evicts until `size` bytes more, and a slot, are to be had, as soon as what is doomed is free.
    fn make_room(&mut self, own: Option<u32>, serves: bool, size: usize) -> bool {
        if !self.fits(size, self.limits.high) {
            while !self.fits(size, self.limits.low)
                && let Some(victim) = self.victim(Kind::Common, own)
            {
                self.evict(victim);
            }
            while serves
                && !self.fits(size, self.limits.high)
                && let Some(victim) = self.victim(Kind::Vmio, own)
            {
                self.evict(victim);
            }
        }
        self.fits(size, self.limits.high)
    }

    fn fits(&self, size: usize, limit: usize) -> bool {
        let bounded = !self.ablation.off(Mechanism::ReassemblyBudget);
        let kept = self.bytes - self.doomed_bytes;
        let slot = self.free != NIL || self.doomed.len > 0;
        slot && (!bounded || size <= limit.saturating_sub(kept))
    }

    /// The oldest datagram of a kind but for one.
    fn victim(&self, kind: Kind, own: Option<u32>) -> Option<u32> {
        let oldest = self.datagrams.oldest(kind)?;
        if Some(oldest) == own {
            self.datagrams.newer(oldest)
        } else {
            Some(oldest)
        }
    }

    fn kind(&self, vmio: bool) -> Kind {
        if vmio && !self.ablation.off(Mechanism::ReassemblyVmio) {
            Kind::Vmio
        } else {
            Kind::Common
        }
    }

    /// It turned out to be one of VMIO: its time counts from now, so that the oldest is first still.
    fn promote(&mut self, index: u32, now: Duration) {
        let kind = self.kind(true);
        if let Some(datagram) = self.datagrams.get_mut(index)
            && !core::mem::replace(&mut datagram.vmio, true)
        {
            datagram.born = now;
            self.datagrams.touch(index, kind);
        }
    }

    fn enter(
        &mut self,
        index: Option<u32>,
        fragment: &Fragment,
        skb: Skb<'m>,
        vmio: bool,
        now: Duration,
    ) -> Step<'m> {
        let at = self.free;
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return Step::Refused(ReassemblyError::Full, skb);
        };
        let size = skb.truesize();
        self.free = slot.next;
        *slot = FragmentSlot {
            skb: Some(skb),
            offset: fragment.offset,
            end: fragment.end(),
            header: fragment.header,
            next: NIL,
        };
        self.used += 1;
        self.bytes += size;
        self.stats.peak = self.stats.peak.max(self.bytes);
        if fragment.is_atomic() {
            let list = List {
                head: at,
                tail: at,
                len: 1,
            };
            return self.complete(list, fragment.len, vmio, Some(*fragment));
        }
        let kind = self.kind(vmio);
        let index = index.or_else(|| {
            let inserted = self.datagrams.insert(
                kind,
                DatagramEntry {
                    key: fragment.key,
                    born: now,
                    vmio,
                    dead: false,
                    list: List::EMPTY,
                    bytes: 0,
                    received: 0,
                    total: None,
                    first: None,
                },
            );
            inserted.ok()
        });
        let index = index.expect("there is a slot: `admit` saw to it");
        let datagram = self.datagrams.get_mut(index);
        let datagram = datagram.expect("it was found or put there");
        link(&mut datagram.list, self.slots, at);
        datagram.bytes += size;
        datagram.received += fragment.len;
        if fragment.offset == 0 {
            datagram.first = Some(*fragment);
        }
        if !fragment.more {
            datagram.total = Some(fragment.end());
        }
        if datagram.total != Some(datagram.received) {
            return Step::Taken;
        }
        let DatagramEntry {
            list,
            received,
            vmio,
            first,
            ..
        } = *datagram;
        self.datagrams.remove(index);
        self.complete(list, received, vmio, first)
    }

    /// The head of the packet becomes what it was before it was cut up.
    fn complete(
        &mut self,
        list: List,
        payload: usize,
        vmio: bool,
        first: Option<Fragment>,
    ) -> Step<'m> {
        if let Some(slot) = self.slots.get_mut(list.head as usize)
            && let (Some(skb), Some(first)) = (&mut slot.skb, first)
        {
            let mended = first.mend(skb, payload);
            mended.expect("nobody shares it, and its headers were read");
            slot.header = 0;
        }
        self.stats.completed += 1;
        Step::Complete(Reassembly {
            list,
            count: list.len,
            payload,
            vmio,
        })
    }

    /// The next skb of a complete packet, without the headers of a fragment.
    pub(super) fn take_piece(&mut self, parts: &mut Reassembly) -> Option<Skb<'m>> {
        let header = self.slot(parts.list.head)?.header;
        let mut skb = self.pop(&mut parts.list)?;
        parts.count -= 1;
        skb.skip(header).expect("its headers were read");
        Some(skb)
    }

    pub(super) fn pop_doomed(&mut self) -> Option<Skb<'m>> {
        let mut doomed = self.doomed;
        let skb = self.pop(&mut doomed);
        self.doomed = doomed;
        let skb = skb?;
        self.doomed_bytes -= skb.truesize();
        Some(skb)
    }

    /// Takes the first fragment of a list.
    fn pop(&mut self, list: &mut List) -> Option<Skb<'m>> {
        let at = list.head;
        let slot = self.slots.get_mut(at as usize)?;
        list.head = core::mem::replace(&mut slot.next, self.free);
        list.len -= 1;
        if list.head == NIL {
            list.tail = NIL;
        }
        self.free = at;
        self.used -= 1;
        let skb = slot.skb.take()?;
        self.bytes -= skb.truesize();
        Some(skb)
    }

    pub(super) fn expire(&mut self, now: Duration) {
        for kind in [Kind::Common, Kind::Vmio] {
            while let Some(index) = self.datagrams.oldest(kind)
                && let Some(datagram) = self.datagrams.get(index)
                && now.saturating_sub(datagram.born) >= self.limits.timeout
            {
                self.stats.timed_out += u64::from(!datagram.dead);
                self.bury(index);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let born = |kind| {
            let oldest = self.datagrams.oldest(kind)?;
            Some(self.datagrams.get(oldest)?.born)
        };
        let born = [Kind::Common, Kind::Vmio].into_iter().filter_map(born);
        born.min()?.checked_add(self.limits.timeout)
    }

    pub(super) fn set_limits(&mut self, limits: ReassemblyLimits) {
        self.limits = sound(limits);
        for kind in [Kind::Common, Kind::Vmio] {
            while self.bytes - self.doomed_bytes > self.limits.high
                && let Some(victim) = self.victim(kind, None)
            {
                self.evict(victim);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        for kind in [Kind::Common, Kind::Vmio] {
            while let Some(index) = self.datagrams.oldest(kind) {
                self.bury(index);
            }
        }
    }

    fn evict(&mut self, index: u32) {
        let datagram = self.datagrams.get(index);
        let vmio = datagram.is_some_and(|datagram| datagram.vmio && !datagram.dead);
        self.stats.evicted += 1;
        self.stats.evicted_vmio += u64::from(vmio);
        self.bury(index);
    }

    /// Forgets a datagram, whose fragments are to be freed.
    fn bury(&mut self, index: u32) {
        if let Some(datagram) = self.datagrams.remove(index) {
            self.doom(datagram.list, datagram.bytes);
        }
    }

    /// Its fragments are to be freed, and what is left of it refused.
    fn kill(&mut self, index: u32) {
        let Some(datagram) = self.datagrams.get_mut(index) else {
            return;
        };
        let killed = !core::mem::replace(&mut datagram.dead, true);
        let list = core::mem::replace(&mut datagram.list, List::EMPTY);
        let bytes = core::mem::take(&mut datagram.bytes);
        self.stats.contradictory += u64::from(killed);
        self.doom(list, bytes);
    }

    fn doom(&mut self, list: List, bytes: usize) {
        if list.len == 0 {
            return;
        }
        match self.slots.get_mut(self.doomed.tail as usize) {
            Some(last) => last.next = list.head,
            None => self.doomed.head = list.head,
        }
        self.doomed.tail = list.tail;
        self.doomed.len += list.len;
        self.doomed_bytes += bytes;
    }

    fn slot(&self, index: u32) -> Option<&FragmentSlot<'m>> {
        self.slots.get(index as usize)
    }
}

/// Links a fragment in by its offset.
fn link(list: &mut List, slots: &mut [FragmentSlot<'_>], at: u32) {
    let offset = slots[at as usize].offset;
    let behind = |slots: &[FragmentSlot<'_>], index: u32| {
        let slot = slots.get(index as usize);
        slot.is_some_and(|slot| slot.offset < offset)
    };
    list.len += 1;
    let mut before = NIL;
    if behind(slots, list.tail) {
        before = list.tail;
    } else {
        let mut next = list.head;
        while behind(slots, next) {
            before = next;
            next = slots[next as usize].next;
        }
    }
    let next = match slots.get_mut(before as usize) {
        Some(before) => core::mem::replace(&mut before.next, at),
        None => core::mem::replace(&mut list.head, at),
    };
    slots[at as usize].next = next;
    if next == NIL {
        list.tail = at;
    }
}

fn sound(limits: ReassemblyLimits) -> ReassemblyLimits {
    ReassemblyLimits {
        low: limits.low.min(limits.high),
        ..limits
    }
}
