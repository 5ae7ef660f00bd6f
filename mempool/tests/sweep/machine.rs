//! Memory whose every allocation can be made to fail, at the source and at the zone.

use mempool::{
    AllocError, BackingError, Buddy, FRAME_SIZE, Frame, FrameAllocator, FrameEntry, FrameSource,
    Gfp, Level, MemallocToken, Pressure, RawFrame, ReserveBacking, SingleTask, Watermarks, Zone,
};

use crate::inject::Injector;

/// Frames that the entitled alone have.
pub(crate) const RESERVE: usize = 16;
const MARKS: Watermarks = Watermarks {
    min: 4,
    low: 6,
    high: 8,
};

/// Everything is leaked, so that lifetimes do not matter.
pub(crate) struct Machine {
    pub(crate) injector: &'static Injector,
    /// Asked directly: the source below fails.
    pub(crate) zone: &'static Zone<'static>,
    /// Fails before the zone is asked, and below it.
    pub(crate) frames: &'static Failing<'static>,
    pub(crate) token: MemallocToken,
    pub(crate) total: usize,
}

pub(crate) fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

pub(crate) fn machine(frames: usize) -> Machine {
    let injector: &'static Injector = leak(Injector::new());
    let zone = zone(frames, injector);
    Machine {
        injector,
        zone,
        frames: leak(Failing { zone, injector }),
        token: zone.claim_memalloc().unwrap(),
        total: frames,
    }
}

/// A zone with a reserve, over a source that can be made to fail.
pub(crate) fn zone(frames: usize, injector: &'static Injector) -> &'static Zone<'static> {
    zone_with(frames, injector, None)
}

pub(crate) fn zone_with(
    frames: usize,
    injector: &'static Injector,
    pressure: Option<&'static dyn Pressure>,
) -> &'static Zone<'static> {
    let memory = leak(vec![0xa5u8; (frames + 1) * FRAME_SIZE]);
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + frames * FRAME_SIZE];
    let table = leak(vec![FrameEntry::EMPTY; frames]);
    let buddy = <Buddy<'_>>::new(memory, table).unwrap();
    let source = leak(FailingSource { buddy, injector });
    let task: &'static SingleTask = leak(SingleTask::new());
    let mut zone = <Zone<'_>>::new(source, task, MARKS).unwrap();
    if let Some(pressure) = pressure {
        zone = zone.with_pressure(pressure);
    }
    zone.grow(RESERVE).unwrap();
    leak(zone)
}

impl Machine {
    /// All that ordinary callers can have.
    pub(crate) fn exhaust(&self) -> Vec<Frame<'static>> {
        exhaust(self.zone, self.injector)
    }

    pub(crate) fn entitled(&self, gfp: Gfp) -> Gfp {
        self.token.gfp(gfp)
    }

    /// Frames that are not free.
    pub(crate) fn held(&self) -> usize {
        self.total - self.zone.stats().free
    }

    pub(crate) fn at_rest(&self) {
        at_rest(self.zone);
    }
}

pub(crate) fn exhaust(zone: &'static Zone<'static>, injector: &Injector) -> Vec<Frame<'static>> {
    injector.aside(|| core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect())
}

/// Every frame is back, in one piece.
pub(crate) fn at_rest(zone: &Zone<'_>) {
    let stats = zone.stats();
    assert_eq!(stats.free, stats.total, "frames were lost");
    assert_eq!((stats.reserve, stats.reserve_in_use), (RESERVE, 0));
    let whole = stats.total.ilog2() as u8;
    assert!(zone.alloc(whole, Gfp::ATOMIC).is_err(), "beyond the mark");
    assert!(
        zone.alloc(whole - 1, Gfp::ATOMIC).is_ok(),
        "it is in pieces"
    );
}

struct FailingSource {
    buddy: Buddy<'static>,
    injector: &'static Injector,
}

// SAFETY: every frame is one of the buddy, which keeps the promises.
unsafe impl FrameSource for FailingSource {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        let fails = self.injector.fails(|| format!("source, order {order}"));
        if fails { None } else { self.buddy.alloc(order) }
    }

    unsafe fn free(&self, frame: RawFrame) {
        // SAFETY: the caller's promise: it came from `alloc`, and so from the buddy.
        unsafe { self.buddy.free(frame) }
    }

    fn total(&self) -> usize {
        self.buddy.total()
    }

    fn free_frames(&self) -> usize {
        self.buddy.free_frames()
    }

    fn max_order(&self) -> u8 {
        self.buddy.max_order()
    }
}

/// A zone that refuses, and cannot back a larger reserve.
pub(crate) struct Failing<'z> {
    pub(crate) zone: &'z Zone<'static>,
    pub(crate) injector: &'z Injector,
}

impl FrameAllocator for Failing<'_> {
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        if self
            .injector
            .fails(|| format!("zone, order {order}, {gfp:?}"))
        {
            return Err(AllocError::Exhausted);
        }
        self.zone.alloc(order, gfp)
    }

    fn entitled(&self, gfp: Gfp) -> bool {
        self.zone.entitled(gfp)
    }

    fn level(&self) -> Level {
        self.zone.level()
    }
}

impl ReserveBacking for Failing<'_> {
    fn grow(&self, frames: usize) -> Result<(), BackingError> {
        if self.injector.fails(|| "backing".into()) {
            return Err(BackingError { missing: frames });
        }
        self.zone.grow(frames)
    }

    fn shrink(&self, frames: usize) {
        self.zone.shrink(frames);
    }
}
