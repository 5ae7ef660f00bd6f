//! Each call of the source fails once.

use super::*;

/// Fails one call, or all from that one on.
struct Failing<'z> {
    zone: &'z Zone<'static>,
    calls: AtomicUsize,
    fails: usize,
    for_good: bool,
}

impl PoolSource for Failing<'_> {
    type Element<'a>
        = Frame<'a>
    where
        Self: 'a;

    fn alloc_element(&self, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.fails || self.for_good && call > self.fails {
            return Err(AllocError::Exhausted);
        }
        self.zone.alloc(0, gfp)
    }
}

/// Everything that a pool does, in plenty and in want. Returns how often it called its source.
fn everything(m: &Machine, token: MemallocToken, fails: usize, for_good: bool) -> usize {
    let source = Failing {
        zone: &m.zone,
        calls: AtomicUsize::new(0),
        fails,
        for_good,
    };
    let (mut slots, mut waiters) = ([const { None }; 3], waiters(1));
    let pool: Pool<'_, '_, _> = Pool::with_waiters("x", &source, &mut slots, &mut waiters);
    let filled = pool.fill(Gfp::KERNEL);
    let missing = filled.map_or_else(|error| error.missing, |()| 0);
    assert_eq!(missing, 3 - pool.stats().available);

    let count = Arc::<Count>::default();
    let waker = Waker::from(count.clone());
    let gfps = [Gfp::KERNEL, token.gfp(Gfp::KERNEL), Gfp::ATOMIC | Gfp::ZERO];
    let mut held = Vec::new();
    for round in 0..4 {
        let hog = if round % 2 == 1 {
            drain(&m.zone)
        } else {
            Vec::new()
        };
        for gfp in gfps.into_iter().chain(gfps) {
            held.extend(pool.alloc(gfp));
            match pool.poll_alloc(&mut Context::from_waker(&waker), gfp) {
                Poll::Ready(got) => held.extend(got),
                Poll::Pending => {
                    let woken = count.get();
                    drop(held.remove(round % held.len()));
                    assert_eq!(count.get(), woken + 1, "who waits is woken");
                }
            }
        }
        assert_eq!(pool.stats().in_use, held.len());
        drop(hog);
        held.truncate(round);
        let _ = pool.fill(Gfp::ATOMIC);
        if round == 2 {
            held.clear();
            assert!(for_good || pool.stats().available >= 1, "they came back");
        }
    }
    drop(held);
    assert_eq!(pool.stats().in_use, 0);
    assert!(for_good || pool.stats().available == 3);
    assert_eq!(m.zone.stats().reserve_in_use, 0);
    drop(pool);
    assert_eq!(m.zone.stats().free, 64, "call {fails}");
    source.calls.load(Ordering::Relaxed)
}

#[test]
fn nothing_leaks_and_nobody_is_forgotten_whichever_call_fails() {
    let (m, token) = reserved();
    let calls = everything(&m, token, usize::MAX, false);
    assert!(calls > 50, "{calls}");
    for fails in 0.. {
        everything(&m, token, fails, true);
        if everything(&m, token, fails, false) <= fails {
            break;
        }
    }
}
