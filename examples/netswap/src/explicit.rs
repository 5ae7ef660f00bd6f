//! Paging by calls, for systems that refuse `userfaultfd`: an access is a request to the machine,
//! which runs it on the frame once the page is there.

use core::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use crate::wire::EventFd;

/// What to do with the bytes of a page once it is resident, on the machine's thread.
pub(crate) enum Action {
    /// Look at them.
    Read(Look),
    /// Change them.
    Write(Change),
}

type Look = Box<dyn FnOnce(&[u8]) + Send>;
type Change = Box<dyn FnOnce(&mut [u8]) + Send>;

/// An access to a page.
pub(crate) struct Access {
    /// Which page, by its number in the working set.
    pub(crate) page: usize,
    /// What to do there.
    pub(crate) action: Action,
}

/// The machine's end: accesses that wait.
pub(crate) struct Mailbox {
    accesses: Receiver<Access>,
    bell: Arc<EventFd>,
}

impl Mailbox {
    /// A mailbox, and one client for each of `shares` equal parts of `pages`.
    ///
    /// # Errors
    ///
    /// The system refused an eventfd.
    pub(crate) fn new(pages: usize, shares: usize) -> std::io::Result<(Mailbox, Vec<Client>)> {
        let bell = Arc::new(EventFd::new()?);
        let (sender, accesses) = mpsc::channel();
        let clients = (0..shares)
            .map(|i| Client {
                pages: pages * i / shares..pages * (i + 1) / shares,
                accesses: sender.clone(),
                bell: Arc::clone(&bell),
            })
            .collect();
        Ok((Mailbox { accesses, bell }, clients))
    }

    /// What to poll(2) for.
    pub(crate) fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// The next access, without blocking.
    pub(crate) fn take(&self) -> Option<Access> {
        // Cleared first: what is sent from now on rings again.
        self.bell.clear();
        self.accesses.try_recv().ok()
    }
}

/// The machine has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// A task's end. Each call waits until the page was there and the action ran.
pub(crate) struct Client {
    pages: Range<usize>,
    accesses: Sender<Access>,
    bell: Arc<EventFd>,
}

impl Client {
    /// Which pages of the working set are this task's.
    pub(crate) fn pages(&self) -> Range<usize> {
        self.pages.clone()
    }

    /// Runs `look` on a page.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the machine went away first.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        page: usize,
        look: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.call(page, |reply| {
            // The task may have given up meanwhile, here and below.
            Action::Read(Box::new(move |bytes| drop(reply.send(look(bytes)))))
        })
    }

    /// Runs `change` on a page.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the machine went away first.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        page: usize,
        change: impl FnOnce(&mut [u8]) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.call(page, |reply| {
            Action::Write(Box::new(move |bytes| drop(reply.send(change(bytes)))))
        })
    }

    fn call<T>(
        &self,
        page: usize,
        action: impl FnOnce(SyncSender<T>) -> Action,
    ) -> Result<T, Stopped> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.accesses
            .send(Access {
                page,
                action: action(reply),
            })
            .map_err(|_| Stopped)?;
        self.bell.ring();
        answer.recv().map_err(|_| Stopped)
    }
}
