//! Many threads, few elements.

use core::sync::atomic::AtomicBool;
use core::time::Duration;
use std::thread::{self, Thread};
use std::time::Instant;

use super::*;

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Waits for an element; a wake-up that was lost is a panic, and not a wait without end.
fn wait<'a, 's>(pool: &'a FramePool<'_, 's>, gfp: Gfp) -> Pooled<'a, Frame<'s>> {
    let task = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(task.clone());
    loop {
        match pool.poll_alloc(&mut Context::from_waker(&waker), gfp) {
            Poll::Ready(element) => return element.expect("elements are out"),
            Poll::Pending => {
                let limit = Instant::now() + Duration::from_secs(60);
                while !task.woken.swap(false, Ordering::Acquire) {
                    assert!(Instant::now() < limit, "a wake-up was lost");
                    thread::park_timeout(Duration::from_secs(1));
                }
            }
        }
    }
}

#[test]
fn everybody_gets_on_with_two_elements() {
    const ROUNDS: usize = 300;
    let m = machine(64);
    m.zone.grow(2).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    for room in [1, 4, 16] {
        let mut slots = [NONE; 2];
        let mut waiters = waiters(room);
        let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
        pool.fill(Gfp::KERNEL).unwrap();
        let mut hog = drain(&m.zone);
        thread::scope(|s| {
            for id in 0..6u8 {
                let pool = &pool;
                s.spawn(move || {
                    let entitled = id >= 4;
                    let gfp = if entitled {
                        token.gfp(Gfp::KERNEL)
                    } else {
                        Gfp::KERNEL
                    };
                    for _ in 0..ROUNDS {
                        let mut element = wait(pool, gfp);
                        assert!(entitled || !element.from_reserve());
                        element[..16].fill(id);
                        thread::yield_now();
                        assert!(element[..16].iter().all(|byte| *byte == id));
                    }
                });
            }
            // Ordinary memory comes and goes.
            for _ in 0..ROUNDS {
                hog.truncate(hog.len() - 2);
                thread::yield_now();
                hog.extend(drain(&m.zone));
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.in_use, stats.available), (0, 2));
        let served = stats.ordinary + stats.from_pool + stats.from_reserve;
        assert_eq!(served, 6 * ROUNDS as u64);
        assert_eq!(m.zone.stats().reserve_in_use, 0);
        drop((pool, hog));
        assert_eq!(m.zone.stats().free, 64);
    }
}
