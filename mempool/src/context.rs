//! Per-task state: the memalloc scope of the running context.

use core::fmt;
use core::marker::PhantomData;

use crate::ablation::{Ablation, Mechanism};
use crate::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the allocator must know of whoever runs.
///
/// A kernel keeps one bit in its task structure and knows whether it runs in an interrupt; it
/// implements this over its `current` task.
pub trait TaskContext: Sync {
    /// Whether the running task is inside a memalloc scope (`PF_MEMALLOC`).
    fn memalloc(&self) -> bool;

    /// Sets the running task's bit and returns the previous one.
    fn set_memalloc(&self, on: bool) -> bool;

    /// Whether a (hard) interrupt runs on top of the task; it never inherits the task's scope (M1).
    /// A softirq borrows the task's bit instead: see [`SoftirqScope`].
    fn in_interrupt(&self) -> bool;
}

/// A guard: while it lives, every allocation of the running task is entitled.
///
/// Scopes nest: an inner scope that ends does not end the outer one. When the outermost ends, all
/// do, should others have been kept longer: the task is never left entitled.
#[must_use = "the scope ends when the guard is dropped"]
pub struct MemallocScope<'a> {
    context: &'a dyn TaskContext,
    outer: bool,
    ablation: Ablation,
    /// The bit belongs to the task that set it: the guard must not change hands.
    not_send: PhantomData<*const ()>,
}

impl<'a> MemallocScope<'a> {
    pub(crate) fn enter(context: &'a dyn TaskContext, ablation: Ablation) -> Self {
        MemallocScope {
            context,
            outer: context.set_memalloc(true),
            ablation,
            not_send: PhantomData,
        }
    }
}

impl Drop for MemallocScope<'_> {
    fn drop(&mut self) {
        if !self.outer && !self.ablation.off(Mechanism::ScopeEnd) {
            self.context.set_memalloc(false);
        }
    }
}

impl fmt::Debug for MemallocScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemallocScope")
            .field("outer", &self.outer)
            .finish_non_exhaustive()
    }
}

/// A guard: while it lives, a softirq runs on top of a task.
///
/// It borrows the task's bit: it does not inherit the scope (M1), may open one of its own, as who
/// processes emergency packets does, and leaves the bit as it found it, whatever scopes it kept.
/// From [`Zone::softirq`](crate::Zone::softirq).
///
/// Softirqs, and the scopes in them, end in the reverse of the order in which they began: a scope that
/// outlives its softirq takes the task's own away.
///
/// The 2007 patch set has this as "mm: allow PF_MEMALLOC from softirq context".
#[must_use = "the softirq ends when the guard is dropped"]
pub struct SoftirqScope<'a> {
    context: &'a dyn TaskContext,
    task: bool,
    not_send: PhantomData<*const ()>,
}

impl<'a> SoftirqScope<'a> {
    pub(crate) fn enter(context: &'a dyn TaskContext, ablation: Ablation) -> Self {
        let task = if ablation.off(Mechanism::SoftirqEntitlement) {
            context.memalloc()
        } else {
            context.set_memalloc(false)
        };
        SoftirqScope {
            context,
            task,
            not_send: PhantomData,
        }
    }
}

impl Drop for SoftirqScope<'_> {
    fn drop(&mut self) {
        self.context.set_memalloc(self.task);
    }
}

impl fmt::Debug for SoftirqScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftirqScope")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

/// The context of a system with one task, interrupts aside: a bare-metal main loop.
///
/// ```
/// use mempool::{SingleTask, TaskContext};
///
/// static TASK: SingleTask = SingleTask::new();
/// let irq = TASK.interrupt();
/// assert!(TASK.in_interrupt());
/// drop(irq);
/// assert!(!TASK.in_interrupt());
/// ```
#[derive(Debug, Default)]
pub struct SingleTask {
    memalloc: AtomicBool,
    /// How deep.
    interrupts: AtomicUsize,
}

impl SingleTask {
    /// No scope, no interrupt.
    #[must_use]
    pub const fn new() -> Self {
        SingleTask {
            memalloc: AtomicBool::new(false),
            interrupts: AtomicUsize::new(0),
        }
    }

    /// Marks an interrupt handler for as long as the guard lives; handlers nest.
    pub fn interrupt(&self) -> InterruptScope<'_> {
        self.count(1);
        InterruptScope { task: self }
    }

    /// Load and store, not an atomic addition: some targets have none, and a handler that comes in
    /// between leaves the count as it found it.
    fn count(&self, by: isize) {
        let depth = self.interrupts.load(Ordering::Relaxed);
        self.interrupts
            .store(depth.wrapping_add_signed(by), Ordering::Relaxed);
    }
}

impl TaskContext for SingleTask {
    fn memalloc(&self) -> bool {
        self.memalloc.load(Ordering::Relaxed)
    }

    fn set_memalloc(&self, on: bool) -> bool {
        // Load and store, not swap: there is one task, and some targets have no swap.
        let before = self.memalloc.load(Ordering::Relaxed);
        self.memalloc.store(on, Ordering::Relaxed);
        before
    }

    fn in_interrupt(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0
    }
}

/// An interrupt handler runs; see [`SingleTask::interrupt`].
#[must_use = "the handler ends when the guard is dropped"]
#[derive(Debug)]
pub struct InterruptScope<'a> {
    task: &'a SingleTask,
}

impl Drop for InterruptScope<'_> {
    fn drop(&mut self) {
        self.task.count(-1);
    }
}

/// The context of a hosted program: one bit per thread, no interrupts.
#[cfg(feature = "std")]
#[derive(Debug, Default, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StdContext;

#[cfg(feature = "std")]
std::thread_local! {
    static MEMALLOC: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

#[cfg(feature = "std")]
impl TaskContext for StdContext {
    fn memalloc(&self) -> bool {
        MEMALLOC.get()
    }

    fn set_memalloc(&self, on: bool) -> bool {
        MEMALLOC.replace(on)
    }

    fn in_interrupt(&self) -> bool {
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn inner_scope_restores_only_its_own_bit() {
        let task = SingleTask::new();
        let outer = MemallocScope::enter(&task, Ablation::NONE);
        drop(MemallocScope::enter(&task, Ablation::NONE));
        assert!(task.memalloc(), "the outer scope goes on");
        drop(outer);
        assert!(!task.memalloc());
    }

    #[test]
    fn m1_scopes_that_end_out_of_order_leave_nobody_entitled() {
        let task = SingleTask::new();
        let [outer, inner] = [(); 2].map(|()| MemallocScope::enter(&task, Ablation::NONE));
        drop(outer);
        drop(inner);
        assert!(!task.memalloc());

        let (hard, nested) = (task.interrupt(), task.interrupt());
        drop(hard);
        assert!(task.in_interrupt(), "the other one still runs");
        drop(nested);
        assert!(!task.in_interrupt());
    }

    #[test]
    fn m1_a_softirq_borrows_the_bit_and_puts_it_back() {
        for outer in [false, true] {
            let task = SingleTask::new();
            task.set_memalloc(outer);
            let softirq = SoftirqScope::enter(&task, Ablation::NONE);
            assert!(!task.memalloc(), "not inherited");
            let own = MemallocScope::enter(&task, Ablation::NONE);
            assert!(task.memalloc(), "but opened");
            let nested = SoftirqScope::enter(&task, Ablation::NONE);
            assert!(!task.memalloc());
            drop(nested);
            assert!(task.memalloc());
            core::mem::forget(own);
            drop(softirq);
            assert_eq!(task.memalloc(), outer, "a scope that was kept ends with it");
        }
    }

    #[test]
    fn nested_interrupts_unwind_in_order() {
        let task = SingleTask::new();
        let hard = task.interrupt();
        drop(task.interrupt());
        assert!(task.in_interrupt());
        drop(hard);
        assert!(!task.in_interrupt());
    }
}
