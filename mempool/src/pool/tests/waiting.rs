//! Who waits, and who is woken.

use std::sync::{Mutex, OnceLock};

use super::*;

fn tasks<const N: usize>() -> ([Arc<Count>; N], [Waker; N]) {
    let counts: [Arc<Count>; N] = core::array::from_fn(|_| Arc::default());
    let wakers = core::array::from_fn(|i| Waker::from(counts[i].clone()));
    (counts, wakers)
}

fn poll<'a, 's, S: PoolSource + ?Sized>(
    pool: &'a Pool<'_, 's, S>,
    waker: &Waker,
    gfp: Gfp,
) -> Poll<Result<Pooled<'a, S::Element<'s>>, PoolError>> {
    pool.poll_alloc(&mut Context::from_waker(waker), gfp)
}

#[test]
fn whatever_comes_back_wakes_all_who_wait_and_each_once() {
    let (m, token) = reserved();
    let (mut slots, mut waiters) = ([NONE; 2], waiters(2));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    pool.fill(Gfp::KERNEL).unwrap();
    let mut hog = drain(&m.zone);
    let mut kept = vec![];
    kept.extend([(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap()));
    let emergency = pool.alloc(token.gfp(Gfp::KERNEL)).unwrap();
    let (counts, wakers) = tasks::<2>();
    let pending = |n: usize| poll(&pool, &wakers[n], Gfp::KERNEL).is_pending();
    let woken = || [counts[0].get(), counts[1].get()];

    assert!(pending(0) && pending(1) && pending(0) && pending(0));
    assert_eq!((pool.stats().waited, pool.stats().refused), (4, 0));
    assert_eq!(woken(), [0, 0]);
    kept.pop();
    assert_eq!(woken(), [1, 1], "an element of the pool");
    let Poll::Ready(Ok(got)) = poll(&pool, &wakers[0], Gfp::KERNEL) else {
        panic!("it is there");
    };
    assert!(pending(1));
    drop(emergency);
    assert_eq!(woken(), [1, 2], "the reserve; the other did not wait");
    assert!(pending(0) && pending(1));
    hog.truncate(hog.len() - 6);
    let ordinary = pool.alloc(Gfp::KERNEL).unwrap();
    drop((kept, got));
    assert_eq!(woken(), [2, 3], "the first of two");
    let refilled: Vec<_> = core::iter::from_fn(|| pool.alloc(Gfp::KERNEL).ok()).collect();
    assert!(pending(0) && pending(1));
    drop(refilled);
    assert_eq!(woken(), [3, 4]);
    drop(ordinary);
    assert_eq!(woken(), [3, 4], "nobody waits");
}

#[test]
fn a_pool_that_is_filled_wakes_who_waits() {
    let (m, _) = reserved();
    let (mut slots, mut waiters) = ([NONE; 2], waiters(2));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    let _ordinary = pool.alloc(Gfp::KERNEL).unwrap();
    let hog = drain(&m.zone);
    let (counts, wakers) = tasks::<1>();
    assert!(poll(&pool, &wakers[0], Gfp::KERNEL).is_pending());
    drop(hog);
    assert_eq!(counts[0].get(), 0, "memory that is freed elsewhere");
    pool.fill(Gfp::KERNEL).unwrap();
    assert_eq!(counts[0].get(), 1);
}

#[test]
fn nobody_waits_for_what_cannot_come_back() {
    let (m, _) = reserved();
    let (mut slots, mut waiters) = ([NONE; 2], waiters(2));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    let _hog = drain(&m.zone);
    let (_, wakers) = tasks::<1>();
    assert!(matches!(
        poll(&pool, &wakers[0], Gfp::KERNEL),
        Poll::Ready(Err(PoolError::Empty))
    ));
    assert_eq!((pool.stats().waited, pool.stats().refused), (0, 1));
}

#[test]
fn without_room_whoever_waits_longest_looks_again() {
    let (m, _) = reserved();
    let (mut slots, mut waiters) = ([NONE; 2], waiters(2));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    let kept = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
    let (counts, wakers) = tasks::<4>();
    let woken = || [0, 1, 2, 3].map(|n| counts[n].get());
    for (n, expected) in [
        (0, [0, 0, 0, 0]),
        (1, [0, 0, 0, 0]),
        (2, [1, 0, 0, 0]),
        (3, [1, 1, 0, 0]),
        (0, [1, 1, 1, 0]),
    ] {
        assert!(poll(&pool, &wakers[n], Gfp::KERNEL).is_pending());
        assert_eq!(woken(), expected);
    }
    drop(kept);
    assert_eq!(woken(), [2, 1, 1, 1]);
}

#[test]
fn without_any_room_a_task_polls_until_it_is_served() {
    let (m, _) = reserved();
    let (mut slots, mut waiters) = ([NONE; 2], waiters(0));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    let kept = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
    let (counts, wakers) = tasks::<1>();
    for n in 1..5 {
        assert!(poll(&pool, &wakers[0], Gfp::KERNEL).is_pending());
        assert_eq!(counts[0].get(), n);
    }
    drop(kept);
    assert!(poll(&pool, &wakers[0], Gfp::KERNEL).is_ready());
}

/// Remembers how much was free when it was woken.
struct Finds(&'static Zone<'static>, AtomicUsize);

impl Wake for Finds {
    fn wake(self: Arc<Self>) {
        self.1.store(self.0.stats().free, Ordering::Relaxed);
    }
}

#[test]
fn memory_is_free_before_anybody_is_woken_for_it() {
    let (m, token) = reserved();
    let zone = &Box::leak(Box::new(m)).zone;
    // A pool of none keeps nothing; what comes back goes to the zone and wakes all the same.
    let (mut slots, mut waiters) = ([], waiters(1));
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", zone, &mut slots, &mut waiters);
    let ordinary = pool.alloc(Gfp::KERNEL).unwrap();
    let _hog = drain(zone);
    let emergency = pool.alloc(token.gfp(Gfp::KERNEL)).unwrap();
    for element in [ordinary, emergency] {
        let task = Arc::new(Finds(zone, AtomicUsize::new(0)));
        assert!(poll(&pool, &Waker::from(task.clone()), Gfp::KERNEL).is_pending());
        let free = zone.stats().free;
        drop(element);
        assert_eq!(task.1.load(Ordering::Relaxed), free + 1);
    }
}

#[test]
fn wakers_that_lay_in_the_slots_are_not_taken_for_tasks_that_wait() {
    let (m, _) = reserved();
    let (counts, wakers) = tasks::<1>();
    let (mut slots, mut waiters) = ([NONE; 1], vec![Some(wakers[0].clone()), None]);
    let pool: FramePool<'_, '_> = Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    let kept = pool.alloc(Gfp::KERNEL).unwrap();
    assert!(poll(&pool, &wakers[0], Gfp::KERNEL).is_pending());
    drop(kept);
    assert_eq!(counts[0].get(), 1);
}

/// A source that looks at its pool whenever it is called, and lets an element come back at the end
/// of a failed try. The lock panics if it is taken by its holder.
struct Nosy {
    zone: &'static Zone<'static>,
    pool: OnceLock<&'static NosyPool>,
    comes_back: Mutex<Option<Pooled<'static, Noticed<'static>>>>,
    looked: AtomicUsize,
}

impl Nosy {
    fn look(&self) {
        if let Some(pool) = self.pool.get() {
            let _ = pool.stats();
            self.looked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Noticed<'a> {
    frame: Frame<'a>,
    source: &'a Nosy,
}

impl Drop for Noticed<'_> {
    fn drop(&mut self) {
        self.source.look();
    }
}

impl core::ops::Deref for Noticed<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame
    }
}

impl core::ops::DerefMut for Noticed<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.frame
    }
}

impl PoolElement for Noticed<'_> {
    fn reserve_derived(&self) -> bool {
        self.source.look();
        self.frame.from_reserve()
    }

    fn renew(&mut self, _: Gfp) {
        self.source.look();
    }
}

impl PoolSource for Nosy {
    type Element<'a> = Noticed<'a>;

    fn alloc_element(&self, gfp: Gfp) -> Result<Noticed<'_>, AllocError> {
        self.look();
        let frame = self.zone.alloc(0, gfp)?;
        Ok(Noticed {
            frame,
            source: self,
        })
    }

    fn may_dip(&self, gfp: Gfp) -> bool {
        self.look();
        drop(self.comes_back.lock().unwrap().take());
        self.zone.entitled(gfp)
    }
}

/// Looks at the pool when it is woken and when it is dropped.
struct NosyTask(&'static Nosy);

impl Wake for NosyTask {
    fn wake(self: Arc<Self>) {
        self.0.look();
    }
}

impl Drop for NosyTask {
    fn drop(&mut self) {
        self.0.look();
    }
}

type NosyPool = Pool<'static, 'static, Nosy>;

fn nosy(room: usize) -> (&'static Nosy, &'static NosyPool, MemallocToken) {
    let (m, token) = reserved();
    let source: &'static Nosy = Box::leak(Box::new(Nosy {
        zone: &Box::leak(Box::new(m)).zone,
        pool: OnceLock::new(),
        comes_back: Mutex::new(None),
        looked: AtomicUsize::new(0),
    }));
    let slots = Box::leak(Box::new([const { None }; 2]));
    let waiters = waiters(room).leak();
    let pool: Pool<'_, '_, _> = Pool::with_waiters("nosy", source, slots, waiters);
    let pool = &*Box::leak(Box::new(pool));
    assert!(source.pool.set(pool).is_ok());
    (source, pool, token)
}

#[test]
fn no_lock_is_held_while_others_are_called() {
    for room in 0..3 {
        let (source, pool, token) = nosy(room);
        pool.fill(Gfp::KERNEL).unwrap();
        let surplus = pool.alloc(Gfp::KERNEL).unwrap();
        let _hog = drain(source.zone);
        let kept = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
        let emergency = pool.alloc(token.gfp(Gfp::KERNEL)).unwrap();
        for _ in 0..3 {
            let waker = Waker::from(Arc::new(NosyTask(source)));
            assert!(poll(pool, &waker, Gfp::KERNEL).is_pending());
            assert!(poll(pool, &waker, Gfp::KERNEL).is_pending());
        }
        let looked = source.looked.load(Ordering::Relaxed);
        drop((kept, emergency, surplus));
        assert!(source.looked.load(Ordering::Relaxed) >= looked + 3 + room);
        assert!(pool.fill(Gfp::KERNEL).is_ok());
    }
}

#[test]
fn what_comes_back_before_the_waker_is_there_is_not_missed() {
    let (source, pool, _) = nosy(2);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(source.zone);
    let [_kept, back] = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
    *source.comes_back.lock().unwrap() = Some(back);
    let (counts, wakers) = tasks::<1>();
    let polled = poll(pool, &wakers[0], Gfp::KERNEL);
    assert_eq!(counts[0].get(), 0, "nobody was waiting when it came");
    assert!(matches!(polled, Poll::Ready(Ok(_))));
}
