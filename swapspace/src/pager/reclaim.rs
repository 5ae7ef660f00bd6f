//! Reclaim: which pages go when memory is short, and how they are written.
//!
//! Background reclaim starts below the `low` mark and rests above `high`; direct reclaim works for
//! faults that wait for a frame. Both take the victims that the policy names. A clean page is dropped at once;
//! dirty ones are gathered into one request for consecutive slots.

use mempool::Frame;

use super::page::State;
use super::requests::{PageList, Request};
use super::{Arrival, End, EvictionPages, EvictionPolicy, Page, PageTable, Pager};
use crate::ablation::Mechanism;
use crate::{
    AddressSpace, CLUSTER_FRAMES, FrameList, Instant, IoClass, IoOp, SlotRun, SubmitError,
    SwapEntry, SwapIo,
};

impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// Frees frames, or starts to, if memory is short. Whether anything moved.
    pub(super) fn reclaim(&mut self, now: Instant) -> bool {
        let waiting = self.faults.waiting();
        let level = self.memory.level();
        if level.below_low() {
            self.background = true;
        } else if !level.below_high() {
            self.background = false;
        }
        let direct = waiting > 0 && level.below_min();
        if !self.background && !direct {
            return false;
        }
        // What is being written comes back by itself.
        let short = (level.marks.high + waiting).saturating_sub(level.ordinary());
        let wanted = short.saturating_sub(self.writeback);
        let class = if direct {
            IoClass::Reclaim
        } else {
            IoClass::Writeback
        };
        wanted > 0 && self.shrink(wanted, class, now)
    }

    /// Evicts pages that were read ahead in vain, if there are any; else up to `wanted` pages, one request's worth of dirty ones at most. Direct reclaim
    /// looks until nothing counts as used any more.
    fn shrink(&mut self, wanted: usize, class: IoClass, now: Instant) -> bool {
        if self.evict_cached(wanted) {
            return true;
        }
        let clean = self.policy.len() - self.dirty;
        let most = self.cluster_limit(now).min(wanted);
        if most == 0 && clean == 0 {
            // Nothing can go: do not forget in vain what was used.
            return false;
        }
        let rounds = if class == IoClass::Reclaim {
            P::ROUNDS
        } else {
            1
        };
        let mut looks = rounds * self.policy.len();
        let mut victims = PageList::new();
        let mut dropped = 0;
        while dropped + victims.len() < wanted && (most == 0 || victims.len() < most) {
            let (policy, mut pages) = self.eviction();
            let Some(page) = policy.victim(&mut pages, &mut looks) else {
                break;
            };
            if !self.pages[page.index()].dirty {
                self.drop_clean(page);
                dropped += 1;
            } else if victims.len() < most && !victims.contains(&page) {
                // There is room for `most`, which is at most the capacity.
                let _ = victims.push(page);
            }
        }
        if !victims.is_empty() && self.page_out(victims, class, now) {
            return true;
        }
        dropped > 0 || self.drop_one_clean()
    }

    /// Evicts a clean page wherever it is in the order: the last resort when no dirty one can be
    /// written, not even to a slot that a resident page gives up. O(resident pages).
    fn drop_one_clean(&mut self) -> bool {
        let (policy, pages) = self.eviction();
        let clean = policy.find(&pages, End::First, |pages, page| {
            !pages.is_dirty(page) && !pages.is_held(page)
        });
        if let Some(page) = clean {
            self.drop_clean(page);
        }
        clean.is_some()
    }

    /// How many pages the next page-out may have; 0 if none may start now.
    fn cluster_limit(&self, now: Instant) -> usize {
        // S8: the last request is kept for a page-in, unless it is the only one.
        let credits = self.credits();
        let kept = usize::from(credits > 1 && !self.off(Mechanism::ReadCredit));
        let blocked = self.throttle.full() || self.throttle.delays(now);
        let clean = self.policy.len() - self.dirty;
        let slots = self.space.usable_slots() as usize;
        if blocked || self.requests.in_flight() + kept >= credits || (slots == 0 && clean == 0) {
            return 0;
        }
        usize::from(self.space.max_frames())
            .min(CLUSTER_FRAMES)
            .min(slots.max(1))
    }

    /// Evicts a page whose bytes are in its slot, or are all zeros.
    fn drop_clean(&mut self, page: Page) {
        self.table.unmap(page);
        drop(self.unlink(page));
        let entry = &mut self.pages[page.index()];
        entry.state = if entry.swap.is_some() {
            State::Swapped
        } else {
            State::Untouched
        };
        let (policy, mut pages) = self.eviction();
        policy.evicted(&mut pages, page);
        self.stats.clean_drops += 1;
    }

    /// Writes dirty pages. Everything that the page-out needs is taken first, in this order: slots,
    /// then the request, whose credit was checked. If either cannot be had, no page has moved (S1);
    /// at most a resident page has given up a slot that it could spare.
    fn page_out(&mut self, mut victims: PageList, class: IoClass, now: Instant) -> bool {
        let Some(run) = self.take_slots(victims.len()) else {
            return false;
        };
        victims.truncate(run.len());
        let slot = run.first();

        let (frames, was_writable) = self.lend(&victims);
        let io = SwapIo::new(IoOp::Write, slot, class, frames);
        let ticket = match self.space.submit(io, now) {
            Ok(ticket) => ticket,
            Err(refused) => {
                self.stats.refusals += 1;
                if refused.error == SubmitError::Busy {
                    self.note_refusal();
                } else {
                    self.throttle.failed(now);
                }
                self.take_back(&victims, refused.io.frames, was_writable);
                if !self.off(Mechanism::Admission) {
                    for entry in run {
                        self.space.free(entry);
                    }
                }
                return false;
            }
        };
        let neighbours = victims.iter().cycle().skip(1).copied();
        for ((page, swap), neighbour) in victims.iter().zip(run).zip(neighbours) {
            let entry = &mut self.pages[page.index()];
            entry.swap = Some(swap);
            entry.neighbour = neighbour.0;
            entry.state = State::Writeback;
            if !T::MAPPED_DURING_WRITEBACK {
                self.table.unmap(*page);
            }
        }
        self.writeback += victims.len();
        self.note_request(Request {
            ticket,
            op: IoOp::Write,
            class,
            expedited: false,
            deadline: None,
            pages: victims,
            since: now,
        });
        true
    }

    /// Write-protects pages and takes their frames. Which of them could be written, by bit.
    fn lend(&mut self, victims: &PageList) -> (FrameList<Frame<'m>>, u32) {
        let mut was_writable = 0;
        let frames = victims.iter().enumerate().map(|(i, page)| {
            let mut frame = self.unlink(*page);
            let entry = &mut self.pages[page.index()];
            was_writable |= u32::from(entry.writable) << i;
            if entry.writable && !self.ablation.off(Mechanism::WriteProtect) {
                entry.writable = false;
                self.table.write_protect(*page, &mut frame);
            }
            // From here on the flag says whether the page was written to since.
            entry.dirty = false;
            frame
        });
        (frames.collect(), was_writable)
    }

    /// Undoes [`lend`](Self::lend).
    fn take_back(&mut self, victims: &PageList, frames: FrameList<Frame<'m>>, was_writable: u32) {
        for ((i, page), frame) in victims.iter().enumerate().zip(frames) {
            let entry = &mut self.pages[page.index()];
            entry.dirty = true;
            if was_writable & (1 << i) != 0 && !entry.writable {
                entry.writable = true;
                self.table.make_writable(*page);
            }
            self.link(*page, frame, Arrival::Back);
        }
    }

    /// Takes slots for up to `want` pages. When none is free, a resident page gives up its own: it
    /// becomes dirty, and another page can go. Not one whose slot would be retired, which makes no
    /// room: such a page is better dropped, being clean.
    fn take_slots(&mut self, want: usize) -> Option<SlotRun> {
        let spare = !self.off(Mechanism::ReadCredit);
        if let Some(run) = self.space.alloc_sparing(want, spare) {
            return Some(run);
        }
        let usable = self.space.usable();
        let (policy, pages) = self.eviction();
        let giver = policy.find(&pages, End::Last, |pages, page| {
            let entry = pages.entry(page);
            let slot = entry.swap.as_ref().map(SwapEntry::slot);
            !entry.stray && slot.is_some_and(|slot| usable.contains(slot))
        });
        if let Some(page) = giver {
            self.lose_slot(page);
            self.stats.slots_reclaimed += 1;
        }
        self.space.alloc_sparing(want, spare)
    }
}
