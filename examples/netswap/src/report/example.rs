//! Made-up runs for the tests of the report.

use super::*;

/// A run that went well: memory fills up, the flood hits, the machine swaps along.
pub(crate) fn verified() -> Outcome {
    Outcome {
        verdict: Verdict::Verified,
        detail: None,
        deadlock: None,
        setup: Setup {
            store: "nfs://10.0.2.2/export/swap?mountport=20048 (in this process)".into(),
            paging: "userfaultfd",
            working_set: 16_384,
            threads: 2,
            seed: 1,
            without: Vec::new(),
        },
        seconds: 20.0,
        pages_verified: 151_210,
        mismatches: 0,
        faults: 148_022,
        pages_in: 120_114,
        pages_out: 101_772,
        fault_us: Percentiles {
            p50: 310,
            p99: 1_840,
            p999: 5_120,
        },
        frames: Frames {
            total: 4_096,
            reserve: 212,
            min: 32,
            low: 64,
            high: 96,
            min_free: 171,
        },
        emergency: Emergency {
            received: 90_112,
            sent: 1_204,
            peak: 57,
            vmio_dropped: 0,
        },
        drops: vec![
            ("emergency_udp", 61_002),
            ("emergency_tcp", 17_240),
            ("emergency_fragment", 2_011),
            ("rcvbuf_full", 204_112),
            ("foreign_arp", 4_020),
            ("no_socket", 12_001),
            ("malformed", 3_998),
            ("protocol_memory_full", 0),
        ],
        flood: Flood {
            pps: 20_000,
            sent: 399_871,
            refused: 311,
        },
        wire: Wire {
            to_machine: 812 << 20,
            from_machine: 431 << 20,
        },
        budget: vec![
            Component {
                name: "rx skbs",
                unit: "frames",
                computed: 66,
                peak: 29,
            },
            Component {
                name: "tx skbs",
                unit: "frames",
                computed: 34,
                peak: 11,
            },
            Component {
                name: "page-out frames",
                unit: "frames",
                computed: 112,
                peak: 0,
            },
        ],
        heap_allocations: 0,
        charges_left: 0,
        timeline: timeline(400, 400),
    }
}

/// The same without the VMIO filter: after nine seconds nothing moves.
pub(crate) fn deadlock() -> Outcome {
    let wait = |who: &str, waits_for: &str| Wait {
        who: who.into(),
        waits_for: waits_for.into(),
    };
    Outcome {
        verdict: Verdict::NoProgress,
        detail: Some("No fault answered and no page written for 4.0 s.".into()),
        deadlock: Some(Deadlock {
            holder: "66 emergency skbs in the queue of UDP socket 7001".into(),
            chain: vec![
                wait(
                    "the program (2 threads, first at page 8117)",
                    "a free frame",
                ),
                wait("reclaim (8 writes in flight)", "replies of the server"),
                wait(
                    "the reply at the NIC",
                    "a receive buffer: the reserve is used up",
                ),
                wait(
                    "UDP socket 7001 (66 buffers queued)",
                    "its reader, the program",
                ),
            ],
        }),
        setup: Setup {
            without: vec!["vmio-filter"],
            ..verified().setup
        },
        timeline: timeline(400, 180),
        ..verified()
    }
}

/// `count` samples at 20 per second; from `stuck` on, nothing moves.
fn timeline(count: usize, stuck: usize) -> Timeline {
    let reasons: Vec<_> = verified_reasons();
    let mut samples: Vec<Sample> = Vec::with_capacity(count);
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for i in 0..count {
        let before = samples.last().cloned().unwrap_or_default();
        let filled = i as u64 * 70;
        let full = filled > 3_700;
        let mut sample = Sample {
            at: i as f64 / 20.0,
            free: if full { 250 + next(70) } else { 4_096 - filled },
            reserve: 212,
            resident: if full { 3_500 + next(40) } else { filled },
            ..before.clone()
        };
        if full && i % 90 > 60 {
            sample.free = 180 + next(40);
        }
        sample.drops.resize(reasons.len(), 0);
        if i < stuck {
            let burst = i % 90 > 60 && full;
            sample.emergency = if burst { 12 + next(30) } else { next(3) };
            for (column, drops) in sample.drops.iter_mut().enumerate() {
                let emergency = column < 3;
                if emergency == burst {
                    *drops += next(600) / (column as u64 % 3 + 1);
                }
            }
            sample.faults += if full { 300 + next(120) } else { 70 };
            sample.pages_in += if full { 240 + next(100) } else { 0 };
            sample.pages_out += if full { 200 + next(160) } else { 0 };
        } else {
            sample.free = 0;
            sample.emergency = 66;
            sample.drops.clone_from(&before.drops);
        }
        samples.push(sample);
    }
    Timeline { reasons, samples }
}

fn verified_reasons() -> Vec<&'static str> {
    vec![
        "emergency_udp",
        "emergency_tcp",
        "emergency_fragment",
        "rcvbuf_full",
        "foreign_arp",
        "no_socket",
        "malformed",
        "protocol_memory_full",
    ]
}
