//! Events: what a kernel's log should say, through `log` or `defmt`, or nowhere.
//!
//! An event is told after every lock of the suite has been released, so that a logger may call back
//! into whatever told it. What can happen as often as packets arrive is told by [`loud`].

/// Tells an event at a level of `log` and `defmt`: `defmt` where both are there, as the target's choice.
/// The format string must be good for both: `{}` and `{:?}`, with positional arguments.
///
/// For the crates of this suite alone: which one it is depends on the features `log` and `defmt` of
/// the crate that calls it. With neither, the arguments are type-checked and nothing is left.
#[doc(hidden)]
#[macro_export]
macro_rules! __event {
    ($level:ident, $format:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(feature = "defmt")]
        ::defmt::$level!($format $(, $argument)*);
        #[cfg(all(feature = "log", not(feature = "defmt")))]
        ::log::$level!($format $(, $argument)*);
        #[cfg(not(any(feature = "log", feature = "defmt")))]
        if false {
            let _ = ::core::format_args!($format $(, $argument)*);
        }
    }};
}

/// Whether events are told to anybody.
pub const EVENTS: bool = cfg!(any(feature = "log", feature = "defmt"));

/// Whether the `nth` event of its kind (from 1) is told: the first, and those that double the count,
/// up to the 1024th; from there on every 1024th.
///
/// A kernel would limit them by time, and there is no clock here. So a flood costs a line for 1024
/// failures, the first ones are seen at once, and a later flood is seen as well. Two that follow each
/// other are never both told but for the first two: a logger which fails itself, and so causes the
/// event that it is telling, is called twice and not for ever.
#[must_use]
pub const fn loud(nth: u64) -> bool {
    const RARE: u64 = 1024;
    (nth < RARE && nth.is_power_of_two()) || (nth > 0 && nth.is_multiple_of(RARE))
}

#[cfg(test)]
mod tests {
    use super::loud;

    #[test]
    fn a_flood_of_failures_is_a_trickle_of_lines() {
        let told = |range: core::ops::RangeInclusive<u64>| range.filter(|&n| loud(n)).count();
        assert!(!loud(0) && loud(1) && loud(2) && !loud(3));
        assert_eq!(told(1..=1023), 10, "1, 2, 4 … 512");
        assert_eq!(told(1024..=1024 * 1000), 1000);
        assert!((3..100_000).all(|n| !(loud(n) && loud(n + 1))));
    }
}
