//! A timer whose handler allocates and frees while the task below does (M1, and every lock).

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::interrupt::Mutex;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use mempool::{
    Buddy, BufferCache, FrameAllocator, FrameEntry, Gfp, ReserveNode, SingleTask, SizedCache,
    Watermarks, Zone,
};

use crate::battery::FRAMES;

/// Interrupts to wait for.
const TICKS: u32 = 500;
/// Bytes of an object.
const SIZE: usize = 100;

/// What the handler works with.
#[derive(Clone, Copy)]
struct World {
    zone: &'static Zone<'static>,
    cache: &'static SizedCache<'static>,
    node: &'static ReserveNode<'static>,
}

static TASK: SingleTask = SingleTask::new();
static WORLD: Mutex<Cell<Option<World>>> = Mutex::new(Cell::new(None));
/// Written by the handler alone.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Of those, while the task was in a memalloc scope.
static IN_SCOPE: AtomicU32 = AtomicU32::new(0);

/// Runs until the handler has come often enough; returns how often.
pub fn run(memory: &mut [u8]) -> u32 {
    let mut table = [FrameEntry::EMPTY; FRAMES];
    let marks = Watermarks {
        min: 2,
        low: 3,
        high: 4,
    };
    let source = <Buddy<'_>>::new(memory, &mut table).unwrap();
    let zone = <Zone<'_>>::new(&source, &TASK, marks).unwrap();
    let token = zone.claim_memalloc().unwrap();
    let cache = <SizedCache<'_>>::new("objects", &zone, SIZE, 0).unwrap();
    let root = <ReserveNode<'_>>::root("total", &zone);
    root.set_limit(2, 4).unwrap();
    // SAFETY: the handler has them until the timer is stopped, which is before they end.
    let world = unsafe {
        World {
            zone: &*core::ptr::from_ref(&zone).cast(),
            cache: &*core::ptr::from_ref(&cache).cast(),
            node: &*core::ptr::from_ref(&root).cast(),
        }
    };
    cortex_m::interrupt::free(|cs| WORLD.borrow(cs).set(Some(world)));
    let mut timer = cortex_m::Peripherals::take().expect("taken once").SYST;
    start(&mut timer);

    let mut pattern = 0u8;
    while SEEN.load(Ordering::Relaxed) < TICKS {
        pattern = pattern.wrapping_add(1) & 0x7f;
        let scope = zone.memalloc(&token);
        let frame = zone.alloc(0, Gfp::KERNEL);
        assert!(
            zone.entitled(Gfp::KERNEL),
            "the handler took the scope away"
        );
        let mut object = cache.alloc(Gfp::KERNEL).expect("there is memory for one");
        object.fill(pattern);
        let charge = root.charge(1).expect("the handler's ends before it does");
        assert!(
            object.iter().all(|&byte| byte == pattern),
            "shared with the handler"
        );
        drop((charge, object, frame));
        drop(scope);
        assert!(
            !zone.entitled(Gfp::KERNEL),
            "the handler left something behind"
        );
    }

    timer.disable_interrupt();
    cortex_m::interrupt::free(|cs| WORLD.borrow(cs).set(None));
    cache.shrink();
    assert_eq!(
        (zone.stats().free, root.usage()),
        (FRAMES, 0),
        "something is lost"
    );
    assert!(
        IN_SCOPE.load(Ordering::Relaxed) > 0,
        "it never came when it mattered"
    );
    SEEN.load(Ordering::Relaxed)
}

fn start(timer: &mut SYST) {
    timer.set_clock_source(SystClkSource::Core);
    // A prime, so that it comes everywhere in the loop.
    timer.set_reload(4001);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}

#[exception]
fn SysTick() {
    let Some(World { zone, cache, node }) = cortex_m::interrupt::free(|cs| WORLD.borrow(cs).get())
    else {
        return;
    };
    let count = |counter: &AtomicU32| {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    };
    if zone.entitled(Gfp::KERNEL) {
        count(&IN_SCOPE);
    }
    let _irq = TASK.interrupt();
    assert!(
        !zone.entitled(Gfp::KERNEL),
        "an interrupt inherited the scope"
    );
    let charge = node.charge(1).expect("the task's is the only other one");
    let mut object = cache.alloc(Gfp::ATOMIC).expect("there is memory for one");
    object.fill(0xff);
    let frame = zone.alloc(0, Gfp::ATOMIC).expect("there is memory for one");
    assert!(!frame.from_reserve() && !object.from_reserve());
    assert!(
        object.iter().all(|&byte| byte == 0xff),
        "shared with the task"
    );
    drop((frame, object, charge));
    count(&SEEN);
}
