//! All counters at once, and a table to print.

use core::fmt;

use crate::{AllocStats, Ingress, IngressStats, PoolStats, SkbPool, SocketStats};

/// A snapshot of the pool, the ladder and the sockets. Its [`Display`](fmt::Display) is a table.
///
/// ```
/// use netreserve::Stats;
///
/// let table = Stats::default().to_string();
/// assert!(table.starts_with("skbs"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stats {
    /// What was allocated.
    pub pool: PoolStats,
    /// What was received, let out and dropped.
    pub ingress: IngressStats,
    /// What the sockets hold.
    pub sockets: SocketStats,
}

impl Stats {
    /// Takes a snapshot. O(sockets). The three parts are taken one after the other.
    #[must_use]
    pub fn new(pool: &SkbPool<'_>, ingress: &Ingress<'_>) -> Self {
        Stats {
            pool: pool.stats(),
            ingress: ingress.stats(),
            sockets: ingress.sockets().stats(),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            pool,
            ingress,
            sockets,
        } = self;
        writeln!(
            f,
            "{:<24}{:>12}{:>12}{:>12}",
            "skbs", "ordinary", "emergency", "failed"
        )?;
        for (name, side) in [("  receive", pool.rx), ("  transmit", pool.tx)] {
            let AllocStats {
                ordinary,
                emergency,
                failed,
            } = side;
            writeln!(f, "{name:<24}{ordinary:>12}{emergency:>12}{failed:>12}")?;
        }
        writeln!(f, "{:<24}{:>12}", "frames received", ingress.received)?;
        for (name, count) in [
            ("  in emergency skbs", ingress.received_emergency),
            ("  vmio", ingress.vmio),
            ("    in fragments", ingress.vmio_fragments),
            ("  control plane", ingress.control),
            ("  to sockets", ingress.delivered),
            ("  to consumers", ingress.taken),
            ("  hidden from them", ingress.untapped),
        ] {
            writeln!(f, "{name:<24}{count:>12}")?;
        }
        writeln!(f, "{:<24}{:>12}", "frames dropped", ingress.dropped.total())?;
        for (reason, count) in ingress.dropped.iter().filter(|&(_, count)| count > 0) {
            writeln!(f, "  {:<22}{count:>12}", reason.name())?;
        }
        writeln!(f, "{:<24}{:>12}", "vmio dropped", ingress.vmio_dropped)?;
        write!(
            f,
            "{:<24}{:>12} of {} skbs in {} of {} sockets, {} at most",
            "bytes in sockets",
            sockets.rmem,
            sockets.queued,
            sockets.waiting,
            sockets.sockets,
            sockets.peak,
        )
    }
}
