//! The findings of one run.

/// Everything that a run found out.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// One sentence more than the verdict itself says: the first wrong page, the error, …
    pub(crate) detail: Option<String>,
    /// Who waits for whom; with [`Verdict::NoProgress`].
    pub(crate) deadlock: Option<Deadlock>,
    /// What was run.
    pub(crate) setup: Setup,
    /// How long the program ran.
    pub(crate) seconds: f64,
    /// Pages that came back as they were written.
    pub(crate) pages_verified: u64,
    /// Pages that did not.
    pub(crate) mismatches: u64,
    /// Page faults answered.
    pub(crate) faults: u64,
    /// Pages read from the swap file.
    pub(crate) pages_in: u64,
    /// Pages written to it.
    pub(crate) pages_out: u64,
    /// How long the faults waited that had to wait, in microseconds.
    pub(crate) fault_us: Percentiles,
    /// The machine's frames.
    pub(crate) frames: Frames,
    /// Packets in memory of the reserve.
    pub(crate) emergency: Emergency,
    /// Packets dropped, by reason, in the order of the table.
    pub(crate) drops: Vec<(&'static str, u64)>,
    /// Unrelated traffic.
    pub(crate) flood: Flood,
    /// All traffic.
    pub(crate) wire: Wire,
    /// The parts of the reserve.
    pub(crate) budget: Vec<Component>,
    /// Times that the swap path took memory from the heap; anything but 0 is a bug.
    pub(crate) heap_allocations: u64,
    /// Charges that were not given back by the end; anything but 0 is a bug.
    pub(crate) charges_left: u64,
    /// How it went.
    pub(crate) timeline: Timeline,
}

impl Outcome {
    /// The run ended too early, and why.
    pub(crate) fn cut_short(&mut self, why: String) {
        self.verdict = Verdict::Error;
        self.detail = Some(why);
    }

    /// Packets dropped, for whatever reason.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.iter().map(|&(_, count)| count).sum()
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every page came back as it was written, and every account is settled.
    Verified,
    /// A deadlock: nothing moves, and the waiting runs in a circle.
    NoProgress,
    /// A page came back wrong.
    DataWrong,
    /// A frame, a slot or a charge was lost.
    AccountingWrong,
    /// The run was cut short.
    Error,
}

impl Verdict {
    /// Its name in the JSON object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::NoProgress => "no-progress",
            Verdict::DataWrong => "data-wrong",
            Verdict::AccountingWrong => "accounting-wrong",
            Verdict::Error => "error",
        }
    }

    /// Its name for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Verdict::Verified => "Verified",
            Verdict::NoProgress => "Deadlock",
            Verdict::DataWrong => "Wrong data",
            Verdict::AccountingWrong => "Accounts not settled",
            Verdict::Error => "Cut short",
        }
    }

    /// What it means, in a sentence.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Verdict::Verified => {
                "Every page came back as it was written, and every account is settled."
            }
            Verdict::NoProgress => "Nothing moves any more: the waiting runs in a circle.",
            Verdict::DataWrong => "A page came back different from what was written.",
            Verdict::AccountingWrong => {
                "The data is right, but a frame, a slot or a charge was lost."
            }
            Verdict::Error => "The run ended before it could show anything.",
        }
    }

    /// The exit status of the program, as `--help` explains it.
    pub(crate) const fn exit_status(self) -> u8 {
        match self {
            Verdict::Verified => 0,
            Verdict::Error => 2,
            Verdict::NoProgress => 3,
            Verdict::DataWrong | Verdict::AccountingWrong => 4,
        }
    }
}

/// A circle of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deadlock {
    /// Who holds the memory that would break the circle, in a few words.
    pub(crate) holder: String,
    /// The circle; the last waits for the first.
    pub(crate) chain: Vec<Wait>,
}

/// One link of a [`Deadlock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Who waits.
    pub(crate) who: String,
    /// For what.
    pub(crate) waits_for: String,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Where the pages went, such as the URL of the server.
    pub(crate) store: String,
    /// How pages fault: "userfaultfd" or "explicit calls".
    pub(crate) paging: &'static str,
    /// Pages that the program used.
    pub(crate) working_set: u64,
    /// Threads of the program.
    pub(crate) threads: usize,
    /// The seed of the run.
    pub(crate) seed: u64,
    /// Mechanisms left out.
    pub(crate) without: Vec<&'static str>,
}

/// A distribution, by three of its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Percentiles {
    /// The median.
    pub(crate) p50: u64,
    /// 99 of 100 are no larger.
    pub(crate) p99: u64,
    /// 999 of 1000 are no larger.
    pub(crate) p999: u64,
}

/// The machine's memory, in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Frames {
    /// All of them.
    pub(crate) total: u64,
    /// Set aside for swap traffic.
    pub(crate) reserve: u64,
    /// Watermark above the reserve: below it, only atomic allocations are served.
    pub(crate) min: u64,
    /// Watermark above the reserve: below it, reclaim starts.
    pub(crate) low: u64,
    /// Watermark above the reserve: up to it, reclaim goes on.
    pub(crate) high: u64,
    /// The fewest that were ever free.
    pub(crate) min_free: u64,
}

/// Packets in memory that came out of the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Emergency {
    /// Received into it.
    pub(crate) received: u64,
    /// Sent out of it.
    pub(crate) sent: u64,
    /// The most that were in use at once.
    pub(crate) peak: u64,
    /// Packets of the swap traffic itself that were dropped; anything but 0 is a bug.
    pub(crate) vmio_dropped: u64,
}

/// Unrelated traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flood {
    /// Packets per second asked for.
    pub(crate) pps: u64,
    /// Packets put on the wire.
    pub(crate) sent: u64,
    /// Packets for which the wire had no room.
    pub(crate) refused: u64,
}

/// Bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wire {
    /// To the machine, the flood included.
    pub(crate) to_machine: u64,
    /// From the machine.
    pub(crate) from_machine: u64,
}

/// What one part of the machine may hold, and what it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    /// Whose.
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// What the arithmetic allows it.
    pub(crate) computed: u64,
    /// The most that it held.
    pub(crate) peak: u64,
}

/// How a run went, moment by moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    /// What the columns of [`Sample::drops`] count.
    pub(crate) reasons: Vec<&'static str>,
    /// In order of time.
    pub(crate) samples: Vec<Sample>,
}

/// The state of the machine at one moment. Counters run from the start of the run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Free frames, the reserve included.
    pub(crate) free: u64,
    /// Frames set aside.
    pub(crate) reserve: u64,
    /// Pages of the program that have a frame.
    pub(crate) resident: u64,
    /// Packet buffers of the reserve in use.
    pub(crate) emergency: u64,
    /// Packets dropped so far, for each of [`Timeline::reasons`].
    pub(crate) drops: Vec<u64>,
    /// Faults answered so far.
    pub(crate) faults: u64,
    /// Pages read so far.
    pub(crate) pages_in: u64,
    /// Pages written so far.
    pub(crate) pages_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_is_that_of_the_help_text() {
        let statuses = [
            (Verdict::Verified, 0),
            (Verdict::Error, 2),
            (Verdict::NoProgress, 3),
            (Verdict::DataWrong, 4),
            (Verdict::AccountingWrong, 4),
        ];
        for (verdict, status) in statuses {
            assert_eq!(verdict.exit_status(), status, "{}", verdict.name());
        }
    }
}
