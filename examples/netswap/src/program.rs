//! The program that is swapped: threads that read and write memory, and own sockets.
//!
//! A task knows nothing of paging. It loads and stores, and stops wherever the machine makes it
//! stop: while it waits for a page it does not empty its sockets, and what they hold stays held.
//! That is the situation which the whole system exists for.

use core::ops::{Range, RangeInclusive};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use netreserve::{SocketId, SocketTable};

use crate::explicit::Client;
use crate::output::tell;
use crate::pattern::{self, Mismatch};
use crate::uffd::Share;
use crate::wire::EventFd;

/// Pages that a task visits before it looks at its sockets: now few, now many. After a short turn the
/// queues are nearly empty, and memory is what bounds them; after a long one their limits do.
const VISITS_PER_TURN: RangeInclusive<u64> = 32..=512;

/// How tasks and the rest of the process speak to each other.
#[derive(Debug)]
pub(crate) struct Control {
    /// Tasks that have not ended.
    pub(crate) running: AtomicUsize,
    /// Rings when a task ends.
    pub(crate) bell: EventFd,
    /// Rings when the first page goes out: from now on memory is short.
    pub(crate) swapping: Arc<EventFd>,
    /// The time is up: check every page once more, then end.
    pub(crate) wind_up: AtomicBool,
    /// The run is over: what is read from now on means nothing.
    pub(crate) abort: AtomicBool,
    /// Pages read back and found right.
    pub(crate) verified: AtomicU64,
    /// Pages read back and found wrong.
    pub(crate) mismatches: AtomicU64,
    /// Packets that reached their owner.
    pub(crate) packets_read: AtomicU64,
}

impl Control {
    /// For `tasks` tasks.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub(crate) fn new(tasks: usize) -> io::Result<Self> {
        Ok(Control {
            running: AtomicUsize::new(tasks),
            bell: EventFd::new()?,
            swapping: Arc::new(EventFd::new()?),
            wind_up: AtomicBool::new(false),
            abort: AtomicBool::new(false),
            verified: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            packets_read: AtomicU64::new(0),
        })
    }

    fn ended(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.bell.ring();
    }

    fn aborted(&self) -> bool {
        self.abort.load(Ordering::Acquire)
    }
}

/// A task's view of its memory: by faults where the system can, by calls elsewhere.
pub(crate) enum Window {
    /// Plain loads and stores.
    Faulting(Share),
    /// Every access is a request to the machine.
    Explicit(Client),
}

impl Window {
    fn pages(&self) -> Range<usize> {
        match self {
            Window::Faulting(share) => share.pages(),
            Window::Explicit(client) => client.pages(),
        }
    }

    fn check(&mut self, seed: u64, page: usize, version: u32) -> Result<(), Mismatch> {
        match self {
            Window::Faulting(share) => pattern::check(share.page(page), seed, page as u32, version),
            Window::Explicit(client) => client
                .read(page, move |bytes| {
                    pattern::check(bytes, seed, page as u32, version)
                })
                .unwrap_or(Ok(())),
        }
    }

    fn write(&mut self, page: usize, fill: impl FnOnce(&mut [u8]) + Send + 'static) {
        match self {
            Window::Faulting(share) => fill(share.page_mut(page)),
            // A machine that has stopped answers no more; the task sees `abort` next.
            Window::Explicit(client) => drop(client.write(page, fill)),
        }
    }
}

/// One thread of the program.
pub(crate) struct Task {
    pub(crate) window: Window,
    pub(crate) seed: u64,
    pub(crate) sockets: Vec<SocketId>,
    pub(crate) table: &'static SocketTable<'static>,
    pub(crate) control: Arc<Control>,
}

impl Task {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The system refused the thread.
    pub(crate) fn spawn(self, name: String) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(name).spawn(move || {
            let control = Arc::clone(&self.control);
            Running::new(self).run();
            control.ended();
        })
    }
}

struct Running {
    task: Task,
    /// How often each page was written, by its place in the share.
    versions: Vec<u32>,
    /// The page into which packets are read, besides the pattern.
    inbox: usize,
    random: u64,
}

impl Running {
    fn new(task: Task) -> Self {
        let pages = task.window.pages();
        let random = task.seed ^ (pages.start as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Running {
            versions: vec![0; pages.len()],
            inbox: pages.start,
            random,
            task,
        }
    }

    fn run(mut self) {
        let control = Arc::clone(&self.task.control);
        // Every page is written once, in order, so that the whole working set exists …
        for page in self.task.window.pages() {
            if control.aborted() {
                return;
            }
            self.rewrite(page);
        }
        // … and then here and there, until the time is up.
        while !control.wind_up.load(Ordering::Acquire) && !control.aborted() {
            for _ in 0..self.turn() {
                let page = self.choose();
                self.visit(page);
                if control.aborted() {
                    return;
                }
            }
            self.empty_sockets();
        }
        for page in self.task.window.pages() {
            if control.aborted() {
                return;
            }
            self.verify(page);
        }
        self.empty_sockets();
    }

    fn visit(&mut self, page: usize) {
        self.verify(page);
        self.rewrite(page);
    }

    fn verify(&mut self, page: usize) {
        let version = self.versions[page - self.task.window.pages().start];
        let found = self.task.window.check(self.task.seed, page, version);
        let control = &self.task.control;
        if control.aborted() {
            return;
        }
        match found {
            Ok(()) => control.verified.fetch_add(1, Ordering::Relaxed),
            Err(mismatch) => {
                tell(format_args!("netswap: {mismatch}"));
                control.mismatches.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    fn rewrite(&mut self, page: usize) {
        let version = &mut self.versions[page - self.task.window.pages().start];
        *version += 1;
        let (seed, version) = (self.task.seed, *version);
        self.task.window.write(page, move |bytes| {
            pattern::fill(bytes, seed, page as u32, version)
        });
    }

    /// Reads what has come, into memory that may be swapped out itself: the packet is held until
    /// the page is there.
    fn empty_sockets(&mut self) {
        for i in 0..self.task.sockets.len() {
            while let Some(skb) = self.task.table.recv(self.task.sockets[i]) {
                let inbox = self.inbox;
                self.task.window.write(inbox, move |bytes| {
                    let data = skb.data();
                    bytes[..data.len()].copy_from_slice(data);
                });
                self.task
                    .control
                    .packets_read
                    .fetch_add(1, Ordering::Relaxed);
                if self.task.control.aborted() {
                    return;
                }
            }
        }
        self.rewrite(self.inbox);
    }

    fn turn(&mut self) -> u64 {
        let (shortest, longest) = (*VISITS_PER_TURN.start(), *VISITS_PER_TURN.end());
        shortest + self.next() % (longest - shortest + 1)
    }

    /// One visit in four goes to an eighth of the pages, the others anywhere.
    fn choose(&mut self) -> usize {
        let pages = self.task.window.pages();
        let hot = self.next().is_multiple_of(4);
        let span = if hot {
            pages.len().div_ceil(8)
        } else {
            pages.len()
        };
        pages.start + (self.next() % span as u64) as usize
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}
