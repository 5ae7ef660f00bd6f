//! Several zones as one, tried in order: `ZONE_NORMAL` before `ZONE_DMA`.

use core::fmt;

use crate::{AllocError, Frame, FrameAllocator, Gfp, Level, Watermarks};

/// Zones in the order in which they are tried, as one [`FrameAllocator`].
///
/// Ordinary memory of every zone comes before the reserve of any (M3: a tag says that the reserve was
/// needed), and before any makes room. The flags hold for each zone by itself: one that is at the
/// caller's mark is passed over.
///
/// Frames go back to the zone that they are of.
///
/// ```
/// use mempool::{
///     Bitmap, FrameAllocator, Gfp, SingleTask, Watermarks, Zone, ZoneList, FRAME_SIZE,
/// };
///
/// let (mut far, mut near) = (vec![0u8; 9 * FRAME_SIZE], vec![0u8; 5 * FRAME_SIZE]);
/// let (mut far_map, mut near_map) = ([0; 1], [0; 1]);
/// let far = <Bitmap>::new(&mut far, &mut far_map)?;
/// let near = <Bitmap>::new(&mut near, &mut near_map)?;
/// let task = SingleTask::new();
/// let normal = <Zone>::new(&far, &task, Watermarks::default())?;
/// let dma = <Zone>::new(&near, &task, Watermarks::default())?;
///
/// // Who needs memory that the device reaches asks `dma`; everybody else spares it.
/// let anywhere = ZoneList::new([&normal, &dma]);
/// let held: Vec<_> = (0..8).map(|_| anywhere.alloc(0, Gfp::ATOMIC)).collect();
/// assert_eq!(normal.stats().free + dma.stats().free, anywhere.level().free);
/// assert!(dma.stats().free >= 4, "the other one first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct ZoneList<'z, const N: usize> {
    zones: [&'z dyn FrameAllocator; N],
}

impl<'z, const N: usize> ZoneList<'z, N> {
    /// The zones, the one to be tried first in front. They must be of one task context.
    #[must_use]
    pub const fn new(zones: [&'z dyn FrameAllocator; N]) -> Self {
        const { assert!(N > 0, "a list of no zones") };
        ZoneList { zones }
    }

    /// The first zone that has memory for such a caller; or the last error.
    fn first(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        let mut error = AllocError::BadOrder;
        for (i, zone) in self.zones.iter().enumerate() {
            // The failure of one is no news while there are others.
            let quiet = if i + 1 < N { Gfp::NOWARN } else { Gfp::NONE };
            match zone.alloc(order, gfp | quiet) {
                // A zone with smaller runs says nothing about the others.
                Err(AllocError::BadOrder) => {}
                Err(other) => error = other,
                Ok(frame) => return Ok(frame),
            }
        }
        Err(error)
    }
}

impl<const N: usize> FrameAllocator for ZoneList<'_, N> {
    /// Takes `1 << order` frames of the first zone that has them. O(N) beside what the zones cost.
    ///
    /// # Errors
    ///
    /// [`AllocError::BadOrder`] if no zone ever has such a run, else [`AllocError::Exhausted`].
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        let ordinary = gfp | Gfp::NOMEMALLOC | Gfp::NORECLAIM;
        if !gfp.contains(Gfp::WAIT) && !self.entitled(gfp) {
            return self.first(order, ordinary);
        }
        match self.first(order, ordinary | Gfp::NOWARN) {
            // Nobody has any: now each may make room, or dip.
            Err(AllocError::Exhausted) => self.first(order, gfp),
            done => done,
        }
    }

    fn entitled(&self, gfp: Gfp) -> bool {
        self.zones[0].entitled(gfp)
    }

    /// The sums of all zones.
    fn level(&self) -> Level {
        let mut sum = Level {
            free: 0,
            reserve: 0,
            marks: Watermarks::default(),
        };
        for level in self.zones.map(|zone| zone.level()) {
            sum.free += level.free;
            sum.reserve += level.reserve;
            sum.marks.min += level.marks.min;
            sum.marks.low += level.marks.low;
            sum.marks.high += level.marks.high;
        }
        sum
    }
}

impl<const N: usize> fmt::Debug for ZoneList<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZoneList")
            .field("zones", &N)
            .field("level", &self.level())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReserveBacking;
    use crate::testbed::machine;
    use alloc::vec::Vec;

    #[test]
    fn m3_ordinary_memory_of_every_zone_comes_before_the_reserve_of_any() {
        let (one, two) = (machine(32), machine(32));
        for m in [&one, &two] {
            m.zone.grow(4).unwrap();
        }
        let token = one.zone.claim_memalloc().unwrap();
        let list = ZoneList::new([&one.zone, &two.zone]);
        let gfp = token.gfp(Gfp::KERNEL);
        let held: Vec<_> = core::iter::from_fn(|| list.alloc(0, gfp).ok()).collect();
        assert_eq!(held.len(), 64, "every last frame");
        let ordinary = held
            .iter()
            .take_while(|frame| !frame.from_reserve())
            .count();
        // `min` is 8 in each.
        assert_eq!(ordinary, 2 * (32 - 4 - 8));
        assert!(held[ordinary..].iter().all(Frame::from_reserve));
        drop(held);
        for m in [&one, &two] {
            assert_eq!(
                (m.zone.stats().free, m.zone.stats().reserve_in_use),
                (32, 0)
            );
        }
    }

    #[test]
    fn m2_each_zone_keeps_to_its_own_marks_and_the_first_is_taken_first() {
        let (one, two) = (machine(32), machine(32));
        let list = ZoneList::new([&one.zone, &two.zone]);
        let mut held = Vec::new();
        while let Ok(frame) = list.alloc(0, Gfp::KERNEL) {
            held.push(frame);
            assert!(one.zone.stats().free == 8 || two.zone.stats().free == 32);
        }
        assert_eq!((one.zone.stats().free, two.zone.stats().free), (8, 8));
        assert_eq!(list.level().free, 16);
        assert!(list.level().below_min());
    }

    #[test]
    fn a_run_that_one_zone_never_has_may_come_from_another() {
        let (mut memory, mut map) = (alloc::vec![0; 9 * crate::FRAME_SIZE], [0; 1]);
        let single = <crate::Bitmap<'_>>::new(&mut memory, &mut map).unwrap();
        let task = crate::SingleTask::new();
        let single = <crate::Zone<'_>>::new(&single, &task, Watermarks::default()).unwrap();
        let runs = machine(32);
        let list = ZoneList::new([&single, &runs.zone]);
        assert_eq!(list.alloc(2, Gfp::ATOMIC).unwrap().order(), 2);
        let never = list.alloc(20, Gfp::ATOMIC).unwrap_err();
        assert_eq!(never, AllocError::BadOrder);
        let only = ZoneList::new([&single as &dyn FrameAllocator]);
        assert_eq!(
            only.alloc(2, Gfp::ATOMIC).unwrap_err(),
            AllocError::BadOrder
        );
    }
}
