//! Waiting for a charge.

/// Where callers sleep until units come free at a [`ReserveNode`](crate::ReserveNode).
///
/// A caller who may wait tries ordinary memory, then the charge; if it is
/// [over the limit](crate::ChargeError::OverLimit) he sleeps until he is told or his deadline has passed, and
/// begins anew: with ordinary memory, which may have come free meanwhile (M6).
///
/// ```
/// use std::sync::{Condvar, Mutex};
/// use std::time::Duration;
/// use mempool::ChargeWaiters;
///
/// /// Counts, so that a release between the refusal and the sleep is not missed.
/// #[derive(Default)]
/// struct WaitQueue(Mutex<u64>, Condvar);
///
/// impl ChargeWaiters for WaitQueue {
///     fn released(&self) {
///         *self.0.lock().unwrap() += 1;
///         self.1.notify_all();
///     }
/// }
///
/// impl WaitQueue {
///     /// Until it is told for the first time since `seen`. Whether that was in time.
///     fn sleep(&self, seen: u64, at_most: Duration) -> bool {
///         let told = self.0.lock().unwrap();
///         let (told, _) = self.1.wait_timeout_while(told, at_most, |told| *told == seen).unwrap();
///         *told != seen
///     }
/// }
/// ```
pub trait ChargeWaiters: Sync {
    /// Units came free, or the limit rose, and a charge has been refused since the last time: all who
    /// wait should try again. Called with no lock of the node held, in the context of whoever frees
    /// memory, an interrupt included.
    fn released(&self);
}
