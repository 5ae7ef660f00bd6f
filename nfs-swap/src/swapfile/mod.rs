//! A file on an NFS server as an address space.

mod config;
mod lease;
mod setup;
mod wire;

use core::task::Poll;

use mempool::Budget;
use swapspace::{
    AddressSpace, Completion, Geometry, Instant, IoClass, PageFrame, Refused, SubmitError, SwapIo,
    Ticket,
};

use crate::ablation::{Ablation, Mechanism};
use crate::client::Client;
use crate::error::SwapFileError;
use crate::stats::Stats;
use crate::transport::{LinkDown, Transport};
use setup::{Leftover, Progress, Setup};
use wire::Wire;

pub use config::{FileMode, SwapFileConfig};
use lease::Own;
pub use lease::{LeaseConfig, LeaseHolder, LeasePolicy, OWNER_MAX, Owner};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Activating,
    Active { users: u32, geometry: Geometry },
    Deactivating,
}

/// Swap space in one file on an NFS server, reached over any [`Transport`], with up to `N`
/// requests in flight.
///
/// Activation mounts the export, looks the file up or creates it, and makes sure that it has its
/// full size and can be written. While it is active a lost connection is established again, with
/// pauses from 50 ms to 2 s, and every request is carried on; a request only fails when the
/// server says so or its deadline has passed. What fails can be submitted again.
///
/// It holds no memory beyond itself: the frames belong to the requests, the transport's buffers
/// to the transport.
///
#[cfg_attr(feature = "std", doc = "```no_run")]
#[cfg_attr(not(feature = "std"), doc = "```ignore")]
/// use core::task::Poll;
/// use core::time::Duration;
/// use nfs_swap::transport::std::StdTcp;
/// use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
/// use swapspace::{AddressSpace, Instant};
///
/// let url = SwapUrl::parse("nfs://10.0.2.2:2049/srv/swap/node1")?;
/// let config = SwapFileConfig::new(&url, 65_536)?;
/// let transport = StdTcp::resolve(url.host, Duration::from_secs(1))?;
/// let mut swap = SwapFile::<Box<[u8]>, _, 32>::new(transport, config);
///
/// let boot = std::time::Instant::now();
/// let now = || Instant::ZERO + boot.elapsed();
/// let geometry = loop {
///     match swap.swap_activate(now()) {
///         Poll::Ready(result) => break result?,
///         Poll::Pending => swap.transport_mut().wait_readable(Duration::from_millis(10))?,
///     }
/// };
/// println!("{} pages", geometry.slots);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SwapFile<F, T, const N: usize> {
    config: SwapFileConfig,
    client: Client<F, N>,
    wire: Wire<T>,
    setup: Setup,
    state: State,
    ablation: Ablation,
}

impl<F: PageFrame, T: Transport, const N: usize> SwapFile<F, T, N> {
    /// An inactive swap file; `transport` leads to the host of the configuration's URL.
    ///
    /// # Panics
    ///
    /// If `config.page_size` is not a power of two of 512 at least.
    #[must_use]
    pub fn new(transport: T, mut config: SwapFileConfig) -> Self {
        assert!(
            config.page_size.is_power_of_two() && config.page_size >= 512,
            "a page has a power of two of bytes, 512 at least"
        );
        config.client.framing = transport.framing();
        SwapFile {
            client: Client::new(config.client.clone()),
            wire: Wire::new(transport, config.client.rpc_timeout),
            setup: Setup::new(
                &config,
                Ablation::NONE,
                Leftover::Nothing,
                Own::Nothing,
                Instant::ZERO,
            ),
            state: State::Idle,
            ablation: Ablation::NONE,
            config,
        }
    }

    /// The transport, to ask it what to wait for.
    pub const fn transport(&self) -> &T {
        &self.wire.transport
    }

    /// The transport, to wait upon it.
    pub const fn transport_mut(&mut self) -> &mut T {
        &mut self.wire.transport
    }

    /// What the client has done.
    pub const fn stats(&self) -> &Stats {
        self.client.stats()
    }

    /// Why the connection was lost the last time, if it ever was.
    pub const fn last_loss(&self) -> Option<LinkDown> {
        self.wire.lost
    }

    /// Who had left the lease behind that the present activation took over: this machine, before it
    /// crashed, or another one, where the [policy](LeaseConfig::policy) allows that.
    pub const fn lease_taken_from(&self) -> Option<LeaseHolder> {
        self.setup.lease_taken_from()
    }

    /// Looks whether the [lease](LeaseConfig) is still ours, and moves its counter on, so that others
    /// see that we live. Call it as often as [`renews_every`](LeaseConfig::renews_every) promises,
    /// and each time until it is `Ready`; poll it with the swap file, whose requests it neither
    /// delays nor waits for (S5). As long as the server is away, it is pending. Without a lease, or
    /// while inactive, there is nothing to do.
    ///
    /// # Errors
    ///
    /// After [`SwapFileError::LeaseLost`] the file takes no more requests: deactivate it. After any
    /// other error the lease is as it was; try again.
    pub fn renew_lease(&mut self, now: Instant) -> Poll<Result<(), SwapFileError>> {
        let (State::Active { .. }, Some(ours)) = (self.state, &self.config.lease) else {
            return Poll::Ready(Ok(()));
        };
        if let Some(lost) = self.setup.lease_lost() {
            return Poll::Ready(Err(lost));
        }
        loop {
            if let Poll::Ready(result) = self.setup.renew_lease(&mut self.client, ours, now) {
                if self.setup.lease_lost().is_some() {
                    self.client.close();
                }
                return Poll::Ready(result);
            }
            if !self.wire.pump(&mut self.client, now) {
                return Poll::Pending;
            }
        }
    }

    /// Switches a mechanism of this swap file or of its client off, for good; what concerns
    /// activation, from the next one on. A mechanism of another object changes nothing: the
    /// transport has switches of its own.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
        self.client.ablate(mechanism);
    }

    fn activation_ends(&mut self, now: Instant) -> Poll<Result<Geometry, SwapFileError>> {
        match core::task::ready!(self.drive_setup(now)) {
            Ok(()) => {
                self.setup.set_ready();
                let geometry = self.setup.geometry::<N>(&self.config);
                self.state = State::Active { users: 1, geometry };
                Poll::Ready(Ok(geometry))
            }
            Err(error) => {
                self.rest(now);
                Poll::Ready(Err(error))
            }
        }
    }

    fn deactivation_ends(&mut self, now: Instant) -> Poll<Result<(), SwapFileError>> {
        let result = core::task::ready!(self.drive_setup(now));
        self.rest(now);
        Poll::Ready(result)
    }

    fn rest(&mut self, now: Instant) {
        self.drop_calls(now);
        self.client.close();
        self.state = State::Idle;
    }

    /// Drops the connection, and with it whatever activation had under way.
    fn drop_calls(&mut self, now: Instant) {
        self.wire.hang_up(&mut self.client, now);
        self.client.cancel_call();
        self.client.forget_zeros();
    }

    /// Works through the steps of activation or deactivation as far as they go now.
    fn drive_setup(&mut self, now: Instant) -> Poll<Result<(), SwapFileError>> {
        loop {
            self.wire.aim(self.setup.port(), &mut self.client, now);
            match self.setup.advance(&mut self.client, &self.config, now) {
                Progress::Moved => continue,
                Progress::Finished(result) => return Poll::Ready(result),
                Progress::Waiting => {}
            }
            let moved = self.wire.pump(&mut self.client, now);
            if let Some(error) = self.setup_is_stuck(now) {
                self.drop_calls(now);
                if let Progress::Finished(result) = self.setup.fail(error, now) {
                    return Poll::Ready(result);
                }
            } else if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Whether it makes no sense to wait any longer for the present step.
    fn setup_is_stuck(&mut self, now: Instant) -> Option<SwapFileError> {
        let stage = self.setup.stage();
        let port = self.setup.port();
        if let Some(error) = self.wire.nonsense.take() {
            return Some(SwapFileError::BadReply { stage, error });
        }
        let down = self.wire.lost.filter(|_| !self.wire.is_up());
        if let Some(why) = down
            && self.wire.never_up()
        {
            return Some(SwapFileError::Connect { port, why });
        }
        (self.setup.gives_up_at(&self.config) <= now).then_some(match down {
            Some(why) => SwapFileError::Connect { port, why },
            None => SwapFileError::TimedOut { stage },
        })
    }
}

impl<F: PageFrame, T: Transport, const N: usize> AddressSpace<F> for SwapFile<F, T, N> {
    type Error = SwapFileError;

    /// Requests hold their frames and nothing else; the transport states its own needs.
    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, SwapFileError>> {
        match &mut self.state {
            State::Active { users, geometry } => {
                if let Some(lost) = self.setup.lease_lost() {
                    return Poll::Ready(Err(lost));
                }
                *users += 1;
                return Poll::Ready(Ok(*geometry));
            }
            State::Deactivating => return Poll::Ready(Err(SwapFileError::Deactivating)),
            State::Activating => {}
            State::Idle => {
                let leftover = self.setup.leftover();
                let lease = self.setup.lease_left();
                self.setup = Setup::new(&self.config, self.ablation, leftover, lease, now);
                self.state = State::Activating;
            }
        }
        self.activation_ends(now)
    }

    fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        match self.state {
            State::Active { .. } => self.client.submit(io, now),
            _ => Err(Refused {
                error: SubmitError::Inactive,
                io,
            }),
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<F, SwapFileError>> {
        let completion = match (self.client.poll_completion(), self.state) {
            (Some(completion), _) => completion,
            (None, State::Idle | State::Activating) => return None,
            (None, _) => {
                self.wire.pump(&mut self.client, now);
                self.client.poll_completion()?
            }
        };
        Some(Completion {
            ticket: completion.ticket,
            io: completion.io,
            result: completion.result.map_err(SwapFileError::Request),
            done: completion.done,
            stray: completion.stray,
        })
    }

    fn cancel(&mut self, ticket: Ticket, _now: Instant) {
        self.client.cancel(ticket);
    }

    fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        self.client.expedite(ticket, class);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let setup = match self.state {
            State::Idle => return None,
            // What has come is to be fetched, or acted upon, at once.
            State::Activating | State::Deactivating if self.client.has_news() => {
                Some(self.setup.started_at())
            }
            State::Active { .. } if self.client.is_calling() && self.client.has_news() => {
                Some(self.setup.started_at())
            }
            State::Active { .. } => self.setup.put_off_until(),
            State::Activating => Some(self.setup.wakes_at(&self.config)),
            State::Deactivating if self.client.in_flight() > 0 => None,
            State::Deactivating if self.client.is_calling() || self.setup.is_put_off() => {
                Some(self.setup.wakes_at(&self.config))
            }
            // The last request has just been fetched: the next step is due at once.
            State::Deactivating => Some(self.setup.started_at()),
        };
        let client = self.client.poll_timeout();
        [setup, client, self.wire.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), SwapFileError>> {
        match &mut self.state {
            State::Idle => return Poll::Ready(Ok(())),
            State::Active { users, .. } if *users > 1 && !self.ablation.off(Mechanism::Nesting) => {
                *users -= 1;
                return Poll::Ready(Ok(()));
            }
            State::Active { .. } => {
                // A renewal that nobody will ask for any more.
                self.client.abandon_call();
                // Where the server is gone, hard requests must not hold deactivation up for ever.
                self.client.end_by(now + self.config.client.deadline);
                self.setup.put_away(&self.config, now);
                self.state = State::Deactivating;
            }
            State::Activating => {
                self.drop_calls(now);
                self.setup.abandon(now);
                self.state = State::Deactivating;
            }
            State::Deactivating => {}
        }
        if self.client.in_flight() > 0 {
            self.wire.pump(&mut self.client, now);
            self.setup.start_clock(now);
            return Poll::Pending;
        }
        self.deactivation_ends(now)
    }
}
