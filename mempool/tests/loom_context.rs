//! Interrupts and softirqs, which may come between any two instructions that touch the flags of a task
//! (M1).
//!
//! An interrupt is no thread: it runs to its end on the CPU of whom it interrupts. So there is one CPU,
//! which every instruction on a flag takes for itself, and every handler for as long as it runs; loom
//! goes through the moments at which that may be. A handler of a higher priority interrupts one of a
//! lower priority in the same way: each priority takes a lock of its own, and whoever is below takes it
//! for each instruction.
#![cfg(loom)]

#[path = "../src/ablation.rs"]
#[allow(dead_code)]
mod ablation;
#[path = "../src/context.rs"]
#[allow(dead_code, unreachable_pub)]
mod context;

use ablation::Ablation;
use context::{MemallocScope, SingleTask, SoftirqScope, TaskContext};
use loom::thread;

/// One CPU, and what an instruction on it is.
mod cpu {
    use core::cell::Cell;

    use loom::sync::{Mutex, MutexGuard};

    loom::lazy_static! {
        static ref LEVELS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    }

    loom::thread_local! {
        /// The priority of what this thread stands for: 0 the task, 1 and 2 handlers.
        static PRIORITY: Cell<usize> = Cell::new(0);
    }

    /// Runs `handler` to its end, between two instructions of everything below `priority`.
    pub(crate) fn interrupt(priority: usize, handler: impl FnOnce()) {
        PRIORITY.with(|at| at.set(priority));
        let cpu = LEVELS[priority - 1].lock().unwrap();
        handler();
        drop(cpu);
    }

    /// One instruction: no handler runs meanwhile.
    pub(crate) fn instruction() -> [Option<MutexGuard<'static, ()>>; 2] {
        let priority = PRIORITY.with(Cell::get);
        [0, 1].map(|level| (level >= priority).then(|| LEVELS[level].lock().unwrap()))
    }
}

/// Under `context.rs`, in place of the atomics of `core`.
mod atomic {
    pub(crate) use core::sync::atomic::Ordering;

    macro_rules! interruptible {
        ($name:ident: $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(core::sync::atomic::$name);

            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    $name(core::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    let _cpu = super::cpu::instruction();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    let _cpu = super::cpu::instruction();
                    self.0.store(value, order);
                }
            }
        };
    }

    interruptible!(AtomicBool: bool);
    interruptible!(AtomicUsize: usize);
}

fn task() -> &'static SingleTask {
    Box::leak(Box::new(SingleTask::new()))
}

/// As a zone judges the running context.
fn entitled(task: &SingleTask) -> bool {
    task.memalloc() && !task.in_interrupt()
}

/// What a task does with its bit, whatever interrupts it.
fn opens_two_scopes(task: &'static SingleTask) {
    assert!(!entitled(task));
    let outer = MemallocScope::enter(task, Ablation::NONE);
    assert!(entitled(task), "the scope was taken away");
    let inner = MemallocScope::enter(task, Ablation::NONE);
    drop(inner);
    assert!(entitled(task), "the scope was taken away");
    drop(outer);
    assert!(!entitled(task), "left entitled");
}

/// A hard interrupt, and what it may not be.
fn hard(task: &'static SingleTask) {
    let _irq = task.interrupt();
    for _ in 0..2 {
        assert!(task.in_interrupt() && !entitled(task), "inherited");
    }
}

/// A softirq that processes emergency packets: it inherits nothing, and opens a scope of its own.
fn soft(task: &'static SingleTask) {
    let _softirq = SoftirqScope::enter(task, Ablation::NONE);
    assert!(!entitled(task), "inherited");
    let scope = MemallocScope::enter(task, Ablation::NONE);
    assert!(entitled(task));
    drop(scope);
    assert!(!entitled(task));
}

fn interrupted(first: fn(&'static SingleTask), second: Option<fn(&'static SingleTask)>) {
    let task = task();
    let first = thread::spawn(move || cpu::interrupt(1, || first(task)));
    let second = second.map(|handler| thread::spawn(move || cpu::interrupt(2, || handler(task))));
    opens_two_scopes(task);
    first.join().unwrap();
    if let Some(second) = second {
        second.join().unwrap();
    }
    let clean = !task.memalloc() && !task.in_interrupt();
    assert!(clean, "something was left behind");
}

/// Each handler comes once, at any moment: that is a switch each, and one back where two nest.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound = Some(3);
    loom.check(model);
}

#[test]
fn m1_an_interrupt_at_any_moment_inherits_nothing_and_leaves_nothing() {
    explore(|| interrupted(hard, None));
}

#[test]
fn m1_a_softirq_at_any_moment_puts_back_the_bit_that_it_borrows() {
    explore(|| interrupted(soft, None));
}

#[test]
fn m1_an_interrupt_on_top_of_a_softirq_on_top_of_a_task() {
    explore(|| interrupted(soft, Some(hard)));
}

#[test]
fn m1_interrupts_nest_and_the_last_one_to_end_ends_them() {
    explore(|| interrupted(hard, Some(hard)));
}

/// The bugs that a model must find, to show that it can.
#[test]
#[should_panic(expected = "the scope was taken away")]
fn a_softirq_that_ends_the_scope_of_its_task_is_found() {
    fn clears(task: &'static SingleTask) {
        let scope = MemallocScope::enter(task, Ablation::NONE);
        core::mem::forget(scope);
        task.set_memalloc(false);
    }
    explore(|| interrupted(clears, None));
}

#[test]
#[should_panic(expected = "inherited")]
fn a_softirq_that_does_not_say_so_is_found_entitled() {
    fn silent(task: &'static SingleTask) {
        assert!(!entitled(task), "inherited");
    }
    explore(|| interrupted(silent, None));
}

#[test]
#[should_panic(expected = "something was left behind")]
fn a_handler_that_never_ends_for_its_task_is_found() {
    fn forgets(task: &'static SingleTask) {
        core::mem::forget(task.interrupt());
    }
    explore(|| interrupted(forgets, None));
}
