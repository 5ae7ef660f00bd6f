//! The findings as one JSON object, for scripts.

use serde_json::{Map, Value, json};

use super::{Outcome, Verdict};

/// The object; field names are a promise to scripts. The timeline is not in it.
pub(crate) fn object(outcome: &Outcome) -> Value {
    let Outcome {
        setup,
        fault_us,
        frames,
        emergency,
        flood,
        wire,
        ..
    } = outcome;
    let drops: Map<_, _> = outcome
        .drops
        .iter()
        .map(|&(reason, count)| (reason.into(), count.into()))
        .collect();
    let budget: Map<_, _> = outcome
        .budget
        .iter()
        .map(|part| {
            (
                part.name.into(),
                json!({ "computed": part.computed, "peak": part.peak }),
            )
        })
        .collect();
    let deadlock = outcome.deadlock.as_ref().map(|deadlock| {
        let chain: Vec<_> = deadlock
            .chain
            .iter()
            .map(|wait| json!({ "who": wait.who, "waits_for": wait.waits_for }))
            .collect();
        json!({ "holder": deadlock.holder, "chain": chain })
    });
    json!({
        "verdict": outcome.verdict.name(),
        "detail": outcome.detail,
        "deadlock": deadlock,
        "setup": {
            "store": setup.store,
            "paging": setup.paging,
            "working_set_pages": setup.working_set,
            "threads": setup.threads,
            "seed": setup.seed,
            "without": setup.without,
        },
        "seconds": outcome.seconds,
        "pages_verified": outcome.pages_verified,
        "mismatches": outcome.mismatches,
        "faults": outcome.faults,
        "pages_in": outcome.pages_in,
        "pages_out": outcome.pages_out,
        "fault_us": { "p50": fault_us.p50, "p99": fault_us.p99, "p999": fault_us.p999 },
        "frames": {
            "total": frames.total,
            "reserve": frames.reserve,
            "min": frames.min,
            "low": frames.low,
            "high": frames.high,
            "min_free": frames.min_free,
        },
        "emergency": {
            "received": emergency.received,
            "sent": emergency.sent,
            "peak": emergency.peak,
            "vmio_dropped": emergency.vmio_dropped,
        },
        "drops": drops,
        "flood": { "pps": flood.pps, "sent": flood.sent, "refused": flood.refused },
        "wire": { "to_machine": wire.to_machine, "from_machine": wire.from_machine },
        "budget": budget,
        "heap_allocations": outcome.heap_allocations,
        "charges_left": outcome.charges_left,
    })
}

/// The object of a run that could not start.
pub(crate) fn refusal(error: &dyn core::fmt::Display) -> Value {
    json!({ "verdict": Verdict::Error.name(), "detail": error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn promised_fields_are_there() {
        let outcome = example::verified();
        let object = object(&outcome);
        for (path, expected) in [
            ("/verdict", json!("verified")),
            ("/pages_verified", json!(outcome.pages_verified)),
            ("/mismatches", json!(0)),
            ("/faults", json!(outcome.faults)),
            ("/pages_in", json!(outcome.pages_in)),
            ("/pages_out", json!(outcome.pages_out)),
            ("/fault_us/p50", json!(outcome.fault_us.p50)),
            ("/fault_us/p99", json!(outcome.fault_us.p99)),
            ("/fault_us/p999", json!(outcome.fault_us.p999)),
            ("/drops/emergency_udp", json!(outcome.drops[0].1)),
            ("/frames/total", json!(outcome.frames.total)),
            ("/frames/reserve", json!(outcome.frames.reserve)),
            ("/frames/min_free", json!(outcome.frames.min_free)),
            (
                "/budget/rx skbs/computed",
                json!(outcome.budget[0].computed),
            ),
            ("/budget/rx skbs/peak", json!(outcome.budget[0].peak)),
            ("/charges_left", json!(0)),
            ("/seconds", json!(outcome.seconds)),
            ("/deadlock", Value::Null),
        ] {
            assert_eq!(object.pointer(path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn text_survives_the_way_through_json() {
        let mut outcome = example::deadlock();
        let odd = "quote \" backslash \\ newline \n tab \t ünïcödé";
        outcome.detail = Some(odd.into());
        let text = object(&outcome).to_string();
        assert!(!text.contains('\n'), "one object, one line");
        let back: Value = text.parse().expect("valid JSON");
        assert_eq!(back["detail"], odd);
        assert_eq!(
            back["deadlock"]["holder"],
            outcome.deadlock.expect("a deadlock").holder
        );
    }
}
