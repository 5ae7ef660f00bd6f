//! The figures of a run.

use core::time::Duration;

use crate::machine::{BUDGET, RING, SKB};
use crate::run::Outcome;
use crate::traffic::{Kind, Shape};

pub(crate) fn print(outcome: &Outcome, took: Duration) {
    let line = |name: &str, count: u64| println!("  {name:<34}{count:>12}");
    println!("packets of the flood{:>28}", outcome.sent);
    for kind in Kind::ALL {
        line(kind.name(), outcome.flood.kinds[kind as usize]);
    }
    println!("of those");
    for shape in Shape::ALL {
        line(shape.name(), outcome.flood.shapes[shape as usize]);
    }
    let ingress = &outcome.ingress;
    println!("verdicts of {:>36}", ingress.received);
    line("vmio", ingress.vmio);
    line("control plane", ingress.control);
    line("to sockets", ingress.delivered);
    line("for another stack", outcome.card[1]);
    for (reason, count) in ingress.dropped.iter().filter(|(_, count)| *count > 0) {
        line(&format!("dropped, {reason}"), count);
    }
    let (rx, tx) = (outcome.pool.rx, outcome.pool.tx);
    println!("buffers");
    line("receive, ordinary", rx.ordinary);
    line("receive, of the reserve", rx.emergency);
    line("transmit, ordinary", tx.ordinary);
    line("transmit, of the reserve", tx.emergency);
    line("could not be had", rx.failed + tx.failed);
    println!("the swap connection");
    line("frames of the server", outcome.from_server);
    line("of them lost", ingress.vmio_dropped + outcome.card[0]);
    line("requests answered", outcome.answered);
    line("bytes of replies verified", outcome.verified);
    let rate = outcome.sent as f64 / took.as_secs_f64();
    println!(
        "reserve: {} frames for {} buffers of {SKB} bytes, {} at most in use (budget {}); {:?} bytes charged at \
         most; {} frames free at the lowest",
        outcome.reserve,
        2 * (RING + 2),
        outcome.peak,
        BUDGET.frames(),
        outcome.node_peaks,
        outcome.lowest_free,
    );
    println!(
        "{:.1} s for {} of virtual time, {rate:.0} packets a second",
        took.as_secs_f64(),
        outcome.virtual_time,
    );
    for broken in &outcome.broken {
        println!("BROKEN: {broken}");
    }
    if outcome.broken.is_empty() {
        println!("every promise held");
    }
}
