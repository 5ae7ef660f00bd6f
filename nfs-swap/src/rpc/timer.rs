//! When to send a call again: an estimate of how long the server takes, as TCP makes it (RFC 6298),
//! in microseconds, so that a lost datagram costs milliseconds.

use core::time::Duration;

/// A wait is lengthened by a random part of at most one in this many, lest calls that were lost
/// together are sent again together.
const JITTER: u32 = 8;

/// Times that a wait doubles at most; whatever the ceiling, no shift overflows.
const DOUBLINGS_MAX: u32 = 16;

/// Between what a [`RetransmitTimer`] moves.
///
/// ```
/// use core::time::Duration;
/// use nfs_swap::rpc::RetransmitConfig;
///
/// // A server on the same board.
/// let near = RetransmitConfig { initial: Duration::from_millis(10), ..RetransmitConfig::default() };
/// assert!(near.floor < near.initial && near.initial < near.ceiling);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RetransmitConfig {
    /// The first wait, before anything is known of the server: 100 ms by default.
    pub initial: Duration,
    /// The shortest wait: 5 ms by default. Much below what the server's slowest storage takes, each
    /// hiccup of it costs a repetition.
    pub floor: Duration,
    /// The longest wait, however often a call was sent: 2 s by default, 100 s at most.
    pub ceiling: Duration,
}

impl Default for RetransmitConfig {
    fn default() -> Self {
        RetransmitConfig {
            initial: Duration::from_millis(100),
            floor: Duration::from_millis(5),
            ceiling: Duration::from_secs(2),
        }
    }
}

/// An adaptive retransmission timer: smoothed round-trip time and its variation (RFC 6298), no
/// sample from a call that was sent twice (Karn), and a wait that doubles with each repetition.
///
/// One belongs to each connection and class of call, because a server answers a READ from its cache
/// and a stable WRITE from its disk. Integer arithmetic, no clock, no global state; everything is
/// O(1).
///
/// ```
/// use core::time::Duration;
/// use nfs_swap::rpc::{RetransmitConfig, RetransmitTimer};
///
/// let mut timer = RetransmitTimer::new(RetransmitConfig::default(), 0x5eed);
/// timer.answered(Duration::from_millis(10), 1);
/// assert_eq!(timer.timeout(), Duration::from_millis(30), "10 ms, and four times 5 ms");
/// let wait = timer.wait(1);
/// assert!(wait >= timer.timeout() && wait <= timer.timeout() * 9 / 8);
/// ```
#[derive(Debug, Clone)]
pub struct RetransmitTimer {
    /// All in microseconds.
    initial: u32,
    floor: u32,
    ceiling: u32,
    /// Eight times the smoothed round-trip time; 0 before the first sample.
    srtt8: u32,
    /// Four times its smoothed deviation.
    rttvar4: u32,
    /// Doublings that a new call begins with: what was learnt by repeating, until a call that was
    /// sent once is answered.
    backoff: u32,
    random: u32,
}

impl RetransmitTimer {
    /// A timer that knows nothing of the server yet. A `seed` of its own keeps two machines apart.
    #[must_use]
    pub fn new(config: RetransmitConfig, seed: u32) -> Self {
        // 100 s and less: eight times that still fits.
        let ceiling = micros(config.ceiling).clamp(1, 100_000_000);
        let floor = micros(config.floor).clamp(1, ceiling);
        RetransmitTimer {
            initial: micros(config.initial).clamp(floor, ceiling),
            floor,
            ceiling,
            srtt8: 0,
            rttvar4: 0,
            backoff: 0,
            // The generator stays at 0 if it starts there.
            random: seed.wrapping_mul(0x9e37_79b9) | 1,
        }
    }

    /// Forgets the server, as a new connection must; the random numbers go on.
    pub const fn restart(&mut self) {
        self.srtt8 = 0;
        self.rttvar4 = 0;
        self.backoff = 0;
    }

    /// A call was answered `rtt` after it was sent last, having been sent `copies` times. Of more
    /// than one, nobody knows which was answered: that is no sample, and the back-off stays (Karn).
    pub fn answered(&mut self, rtt: Duration, copies: u32) {
        if copies != 1 {
            return;
        }
        self.backoff = 0;
        let rtt = micros(rtt).clamp(1, self.ceiling);
        if self.srtt8 == 0 {
            self.srtt8 = 8 * rtt;
            self.rttvar4 = 2 * rtt;
            return;
        }
        // RFC 6298 section 2.3: alpha is 1/8, beta is 1/4, and the variation comes first.
        let deviation = (self.srtt8 / 8).abs_diff(rtt);
        self.rttvar4 = self.rttvar4 - self.rttvar4 / 4 + deviation;
        self.srtt8 = self.srtt8 - self.srtt8 / 8 + rtt;
    }

    /// A call was not answered in its time, having been sent `copies` times.
    pub fn timed_out(&mut self, copies: u32) {
        // Not one more for each call: all that were lost together tell the same news.
        self.backoff = self.backoff.max(copies).min(DOUBLINGS_MAX);
    }

    /// How long a call that is sent once waits, without back-off and jitter.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.estimate().into())
    }

    /// How long to wait for the answer to a call that has now been sent `copies` times: the
    /// [timeout](Self::timeout), doubled for each copy but the first, up to the ceiling, and up to an
    /// eighth more at random.
    pub fn wait(&mut self, copies: u32) -> Duration {
        let doublings = self
            .backoff
            .max(copies.saturating_sub(1))
            .min(DOUBLINGS_MAX);
        let wait = (u64::from(self.estimate()) << doublings).min(self.ceiling.into());
        let span = wait / u64::from(JITTER) + 1;
        Duration::from_micros(wait + u64::from(self.next_random()) % span)
    }

    fn estimate(&self) -> u32 {
        match self.srtt8 {
            0 => self.initial,
            // The clock has a grain of 1 µs.
            srtt8 => (srtt8 / 8 + self.rttvar4.max(1)).clamp(self.floor, self.ceiling),
        }
    }

    /// Marsaglia's xorshift of 32 bits: enough to spread calls out.
    const fn next_random(&mut self) -> u32 {
        let mut x = self.random;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random = x;
        x
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn timer() -> RetransmitTimer {
        RetransmitTimer::new(RetransmitConfig::default(), 1)
    }

    #[test]
    fn the_arithmetic_is_that_of_rfc_6298() {
        let mut timer = timer();
        assert_eq!(timer.timeout(), 100 * MS);
        timer.answered(8 * MS, 1);
        assert_eq!(timer.timeout(), 8 * MS + 4 * (4 * MS));
        timer.answered(16 * MS, 1);
        // RTTVAR = 3/4 · 4 + 1/4 · 8 = 5, SRTT = 7/8 · 8 + 1/8 · 16 = 9.
        assert_eq!(timer.timeout(), 9 * MS + 4 * (5 * MS));
    }

    #[test]
    fn a_steady_server_brings_the_wait_down_to_the_floor() {
        let mut timer = timer();
        for _ in 0..64 {
            timer.answered(Duration::from_micros(80), 1);
        }
        assert_eq!(timer.timeout(), 5 * MS);
    }

    #[test]
    fn what_was_sent_twice_is_no_sample_and_ends_no_back_off() {
        let mut timer = timer();
        timer.answered(8 * MS, 1);
        let before = timer.timeout();
        timer.timed_out(1);
        timer.answered(1 * MS, 2);
        assert_eq!(timer.timeout(), before);
        assert!(timer.wait(1) >= 2 * before, "a new call waits longer, too");
        timer.answered(8 * MS, 1);
        assert!(timer.wait(1) < 2 * before);
    }

    #[test]
    fn many_calls_lost_together_double_the_wait_once() {
        let mut timer = timer();
        for _ in 0..8 {
            timer.timed_out(1);
        }
        let wait = timer.wait(1);
        assert!((200 * MS..=225 * MS).contains(&wait), "{wait:?}");
    }

    #[test]
    fn a_new_connection_knows_nothing() {
        let mut timer = timer();
        timer.answered(1 * MS, 1);
        timer.timed_out(4);
        timer.restart();
        assert_eq!(timer.timeout(), 100 * MS);
        assert!(timer.wait(1) < 200 * MS);
    }

    #[test]
    fn calls_do_not_wait_in_step_and_seeds_differ() {
        let waits = |seed| {
            let mut timer = RetransmitTimer::new(RetransmitConfig::default(), seed);
            (0..8).map(|_| timer.wait(1)).collect::<Vec<_>>()
        };
        let (first, second) = (waits(1), waits(2));
        assert!(first.windows(2).any(|pair| pair[0] != pair[1]));
        assert_ne!(first, second);
        assert_eq!(first, waits(1));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Answered(u64, u32),
        TimedOut(u32),
        Wait(u32),
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (any::<u64>(), any::<u32>()).prop_map(|(us, copies)| Event::Answered(us, copies)),
            (0u64..10_000_000, Just(1)).prop_map(|(us, copies)| Event::Answered(us, copies)),
            any::<u32>().prop_map(Event::TimedOut),
            any::<u32>().prop_map(Event::Wait),
            Just(Event::Restart),
        ]
    }

    proptest! {
        #[test]
        fn no_history_leads_out_of_the_bounds(
            events in proptest::collection::vec(event(), 0..80),
            bounds in proptest::array::uniform3(any::<u32>()),
            seed: u32,
        ) {
            let [initial, floor, ceiling] = bounds.map(|us| Duration::from_micros(us.into()));
            let mut timer = RetransmitTimer::new(RetransmitConfig { initial, floor, ceiling }, seed);
            let ceiling = ceiling.clamp(Duration::from_micros(1), Duration::from_secs(100));
            let floor = floor.min(ceiling);
            for event in events {
                match event {
                    Event::Answered(us, copies) => timer.answered(Duration::from_micros(us), copies),
                    Event::TimedOut(copies) => timer.timed_out(copies),
                    Event::Restart => timer.restart(),
                    Event::Wait(copies) => {
                        let wait = timer.wait(copies);
                        prop_assert!(wait >= timer.timeout());
                        prop_assert!(wait <= ceiling * 9 / 8 + Duration::from_micros(1));
                    }
                }
                prop_assert!((floor..=ceiling).contains(&timer.timeout()));
            }
        }

        #[test]
        fn a_steady_server_is_never_repeated_to(rtt in 1u64..1_900_000, seed: u32) {
            let rtt = Duration::from_micros(rtt);
            let mut timer = RetransmitTimer::new(RetransmitConfig::default(), seed);
            for _ in 0..200 {
                timer.answered(rtt, 1);
                prop_assert!(timer.wait(1) > rtt);
            }
        }

        #[test]
        fn each_copy_waits_about_twice_as_long(seed: u32, rtt in 1_000u64..100_000) {
            let mut timer = RetransmitTimer::new(RetransmitConfig::default(), seed);
            timer.answered(Duration::from_micros(rtt), 1);
            for copies in 1..12 {
                let (wait, next) = (timer.wait(copies), timer.wait(copies + 1));
                let ceiling = Duration::from_secs(2);
                prop_assert!(next >= (wait * 16 / 9 - MS).min(ceiling));
            }
        }
    }
}
