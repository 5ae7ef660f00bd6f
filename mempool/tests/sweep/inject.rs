//! Failures, put where allocations are asked for, one after the other.
//!
//! A scenario is run with no failure first, which says how many calls it makes. Then it is run again
//! for each of them: with that call failing, and with that one and all later ones failing until the
//! scenario says that memory is back. Where a failure leads to a site that has not failed yet, it is run
//! once more with both failing, until there is none. After each run nothing may be left, and the same
//! scenario must succeed when nothing fails any more.

use core::cell::Cell;
use core::fmt::Debug;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// Calls in one run: more, and somebody asks again and again.
const CALLS_MAX: usize = 100_000;

/// Which calls fail, counted from 0.
#[derive(Debug, Clone)]
pub(crate) enum Fails {
    Never,
    At(Vec<usize>),
    From(usize),
}

/// Counts calls by site, and lets those fail which it is told to.
#[derive(Debug)]
pub(crate) struct Injector {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fails: Fails,
    /// What the scenario does now.
    step: &'static str,
    calls: usize,
    injected: usize,
    /// Calls of the scenario's own, such as those that take all memory: neither counted nor failed.
    aside: bool,
    sites: BTreeMap<Site, SiteState>,
}

/// What was done, and what was asked for.
type Site = (&'static str, String);

#[derive(Debug, Default)]
struct SiteState {
    failed: bool,
    /// The first call of this run that met it.
    met: Option<usize>,
}

impl Injector {
    pub(crate) const fn new() -> Self {
        let state = State {
            fails: Fails::Never,
            step: "",
            calls: 0,
            injected: 0,
            aside: false,
            sites: BTreeMap::new(),
        };
        Injector {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed in here must not hide behind the poison.
        self.state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// A call that asks for `what`; whether it must fail.
    pub(crate) fn fails(&self, what: impl FnOnce() -> String) -> bool {
        let mut state = self.state();
        if state.aside {
            return false;
        }
        let call = state.calls;
        state.calls += 1;
        assert!(
            call < CALLS_MAX,
            "somebody asks again and again: {}",
            state.step
        );
        let fails = match &state.fails {
            Fails::Never => false,
            Fails::At(calls) => calls.contains(&call),
            Fails::From(n) => call >= *n,
        };
        state.injected += usize::from(fails);
        let site = (state.step, what());
        let site = state.sites.entry(site).or_default();
        site.failed |= fails;
        site.met.get_or_insert(call);
        fails
    }

    /// The scenario's own calls.
    pub(crate) fn aside<T>(&self, calls: impl FnOnce() -> T) -> T {
        let before = core::mem::replace(&mut self.state().aside, true);
        let result = calls();
        self.state().aside = before;
        result
    }

    /// Begins a run, in which these fail.
    pub(crate) fn arm(&self, fails: Fails) {
        let mut state = self.state();
        (state.fails, state.calls, state.injected) = (fails, 0, 0);
        state.sites.values_mut().for_each(|site| site.met = None);
    }

    /// Nothing fails from now on.
    fn release(&self) {
        self.state().fails = Fails::Never;
    }
}

impl State {
    /// The first calls of this run at sites that never failed in any.
    fn met_but_never_failed(&self) -> Vec<usize> {
        let sites = self.sites.values().filter(|site| !site.failed);
        sites.filter_map(|site| site.met).collect()
    }
}

/// One run of a scenario.
pub(crate) struct Run<'i> {
    injector: &'i Injector,
    failures: Cell<usize>,
}

impl<'i> Run<'i> {
    /// What follows is this; sites are told apart by it.
    pub(crate) fn step(&self, step: &'static str) {
        self.injector.state().step = step;
    }

    /// Goes on without what could not be had.
    pub(crate) fn need<T, E: Debug>(&self, result: Result<T, E>) -> Option<T> {
        if result.is_err() {
            self.failures.set(self.failures.get() + 1);
        }
        result.ok()
    }

    /// Memory is back: nothing fails from now on.
    #[allow(
        dead_code,
        reason = "not every user of this file has scenarios that wait for it"
    )]
    pub(crate) fn memory_is_back(&self) {
        self.injector.release();
    }

    /// How many calls were made to fail in this run so far.
    pub(crate) fn injected(&self) -> usize {
        self.injector.state().injected
    }
}

/// Runs `scenario` once for each call that it makes and each way to fail, and `at_rest` after each
/// run, which must find nothing left.
pub(crate) fn sweep(
    name: &str,
    injector: &Injector,
    scenario: impl Fn(&Run<'_>),
    at_rest: impl Fn(),
) {
    let run = |fails: &Fails| {
        let _context = Context(name, fails);
        injector.arm(fails.clone());
        let run = Run {
            injector,
            failures: Cell::new(0),
        };
        scenario(&run);
        injector.release();
        injector.aside(&at_rest);
        let state = injector.state();
        if state.injected == 0 {
            assert_eq!(run.failures.get(), 0, "{name}: nothing was made to fail");
        }
        (state.calls, state.injected)
    };
    let (calls, _) = run(&Fails::Never);
    assert!(calls > 0, "{name} asks for nothing");
    let mut runs = 0;
    let mut fail = |fails: &Fails| {
        let (_, injected) = run(fails);
        // Where this led to sites that have not failed yet, they are next.
        let new = injector.state().met_but_never_failed();
        // Nothing is stuck: it succeeds when nothing fails.
        run(&Fails::Never);
        runs += 1;
        (injected > 0, new)
    };
    let mut next = Vec::new();
    for n in 0.. {
        assert!(n < 10 * calls, "{name}: failures make it ask for ever more");
        let at = vec![n];
        let (injected, new) = fail(&Fails::At(at.clone()));
        if !injected {
            assert!(
                n >= calls,
                "{name}: {n} calls, and {calls} without a failure"
            );
            break;
        }
        next.extend(
            new.into_iter()
                .map(|call| [at.clone(), vec![call]].concat()),
        );
        fail(&Fails::From(n));
    }
    while let Some(at) = next.pop() {
        let (_, new) = fail(&Fails::At(at.clone()));
        next.extend(
            new.into_iter()
                .map(|call| [at.clone(), vec![call]].concat()),
        );
    }
    let sites = &injector.state().sites;
    let missed: Vec<_> = sites.iter().filter(|(_, site)| !site.failed).collect();
    println!("{name}: {calls} calls, {} sites, {runs} runs", sites.len());
    assert!(missed.is_empty(), "{name}: never failed: {missed:?}");
}

/// Says which run it was that panicked.
struct Context<'n>(&'n str, &'n Fails);

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("in {}, {:?}", self.0, self.1);
        }
    }
}
