//! Tasks, polled when they were woken and not otherwise.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

#[derive(Default)]
pub(crate) struct Executor {
    tasks: Vec<Task>,
}

struct Task {
    /// Until it is over.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
    polls: u64,
}

/// A task has to be polled before it can wait for anything.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Executor {
    /// Returns its number.
    pub(crate) fn spawn<R>(&mut self, future: impl Future<Output = R> + 'static) -> usize {
        self.tasks.push(Task {
            future: Some(Box::pin(async move {
                let _ = future.await;
            })),
            woken: Arc::new(Woken(AtomicBool::new(true))),
            polls: 0,
        });
        self.tasks.len() - 1
    }

    /// Until everybody sleeps.
    pub(crate) fn run(&mut self) {
        while let Some(task) = self.tasks.iter_mut().find(|task| task.take_woken()) {
            task.poll();
        }
    }

    /// How often a task was polled.
    pub(crate) fn polls(&self, task: usize) -> u64 {
        self.tasks[task].polls
    }
}

impl Task {
    fn take_woken(&self) -> bool {
        self.future.is_some() && self.woken.0.swap(false, Ordering::Relaxed)
    }

    fn poll(&mut self) {
        let waker = Waker::from(self.woken.clone());
        self.polls += 1;
        if let Some(future) = &mut self.future
            && let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            self.future = None;
        }
    }
}
