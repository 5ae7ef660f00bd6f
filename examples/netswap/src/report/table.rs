//! The closing table.
//!
//! Its rows are made once, here; the terminal and the HTML page only lay them out.

use super::Outcome;

/// Rows that belong together.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) rows: Vec<Row>,
}

/// A thing and what was found of it.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) value: String,
    /// What the value means, where it does not go without saying.
    pub(super) note: String,
}

/// The table as plain text, as wide as it needs to be, closed by a newline.
pub(crate) fn closing_table(outcome: &Outcome) -> String {
    let sections = sections(outcome);
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let labels = rows()
        .map(|row| row.label.chars().count())
        .max()
        .unwrap_or(0);
    let values = rows()
        .filter(|row| !row.note.is_empty())
        .map(|row| row.value.chars().count());
    let values = values.max().unwrap_or(0);

    let mut text = headline(outcome);
    for Section { title, rows } in &sections {
        text += &format!("\n{title}\n");
        for Row { label, value, note } in rows {
            let line = format!("  {label:<labels$}  {value:>values$}  {note}");
            text += line.trim_end();
            text.push('\n');
        }
    }
    text
}

/// The rows, the most important first.
pub(super) fn sections(outcome: &Outcome) -> Vec<Section> {
    vec![
        program(outcome),
        memory(outcome),
        budget(outcome),
        network(outcome),
        drops(outcome),
    ]
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Verdict, and what there is to say about it, the circle of waiting included.
fn headline(outcome: &Outcome) -> String {
    let title = outcome.verdict.title().to_uppercase();
    let mut text = format!("{title}  {}\n", outcome.verdict.sentence());
    if let Some(detail) = &outcome.detail {
        text += &format!("  {detail}\n");
    }
    if let Some(deadlock) = &outcome.deadlock {
        text += &format!(
            "\nThe memory is held by {}.\nWho waits for whom:\n",
            deadlock.holder
        );
        for (i, wait) in deadlock.chain.iter().enumerate() {
            text += &format!("  {}. {}: for {}\n", i + 1, wait.who, wait.waits_for);
        }
    }
    text
}

fn program(outcome: &Outcome) -> Section {
    let setup = &outcome.setup;
    let per_second = |count: u64| format!("{}/s", grouped((count as f64 / outcome.seconds) as u64));
    let us = |t: u64| format!("{} µs", grouped(t));
    let mut rows = vec![
        row("swap space", &setup.store, ""),
        row(
            "pages verified",
            grouped(outcome.pages_verified),
            "as they were written",
        ),
        row("pages wrong", grouped(outcome.mismatches), ""),
        row(
            "working set",
            grouped(setup.working_set),
            pages_of(setup.paging, setup.threads),
        ),
        row(
            "faults",
            grouped(outcome.faults),
            per_second(outcome.faults),
        ),
        row(
            "pages in",
            grouped(outcome.pages_in),
            per_second(outcome.pages_in),
        ),
        row(
            "pages out",
            grouped(outcome.pages_out),
            per_second(outcome.pages_out),
        ),
        row(
            "fault, median",
            us(outcome.fault_us.p50),
            "of those that had to wait",
        ),
        row("fault, 99 %", us(outcome.fault_us.p99), ""),
        row("fault, 99.9 %", us(outcome.fault_us.p999), ""),
        row(
            "time",
            format!("{:.1} s", outcome.seconds),
            format!("seed {}", setup.seed),
        ),
    ];
    if !setup.without.is_empty() {
        rows.insert(1, row("left out", setup.without.join(", "), ""));
    }
    Section {
        title: "Program",
        rows,
    }
}

fn pages_of(paging: &str, threads: usize) -> String {
    let s = if threads == 1 { "" } else { "s" };
    format!("pages, {threads} thread{s}, {paging}")
}

fn memory(outcome: &Outcome) -> Section {
    let frames = &outcome.frames;
    let marks = format!(
        "min {}, low {}, high {} above it",
        frames.min, frames.low, frames.high
    );
    let emergency = &outcome.emergency;
    Section {
        title: "Memory (frames of 4 KiB)",
        rows: vec![
            row("frames", grouped(frames.total), ""),
            row("reserve", grouped(frames.reserve), marks),
            row("fewest free", grouped(frames.min_free), ""),
            row(
                "emergency receives",
                grouped(emergency.received),
                "packets into reserve memory",
            ),
            row(
                "emergency sends",
                grouped(emergency.sent),
                "packets out of reserve memory",
            ),
            row(
                "emergency peak",
                grouped(emergency.peak),
                "buffers in use at once",
            ),
            row(
                "heap allocations",
                grouped(outcome.heap_allocations),
                match outcome.heap_allocations {
                    0 => "on the swap path",
                    _ => "on the swap path: MUST BE 0",
                },
            ),
            row(
                "charges left",
                grouped(outcome.charges_left),
                must_be_zero(outcome.charges_left),
            ),
        ],
    }
}

fn budget(outcome: &Outcome) -> Section {
    let parts = outcome.budget.iter().map(|part| {
        let over = if part.peak > part.computed {
            ": TOO SMALL"
        } else {
            ""
        };
        row(
            part.name,
            grouped(part.computed),
            format!("{}, at most {} used{over}", part.unit, grouped(part.peak)),
        )
    });
    Section {
        title: "Budget, as computed",
        rows: parts.collect(),
    }
}

fn network(outcome: &Outcome) -> Section {
    let Outcome {
        flood,
        wire,
        emergency,
        ..
    } = outcome;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let vmio = emergency.vmio_dropped;
    Section {
        title: "Network",
        rows: vec![
            row("to the machine", mib(wire.to_machine), ""),
            row("from the machine", mib(wire.from_machine), ""),
            row(
                "flood",
                grouped(flood.sent),
                format!("packets, {}/s asked", grouped(flood.pps)),
            ),
            row(
                "flood refused",
                grouped(flood.refused),
                "no room on the wire",
            ),
            row("swap packets dropped", grouped(vmio), must_be_zero(vmio)),
        ],
    }
}

fn drops(outcome: &Outcome) -> Section {
    let reasons = outcome.drops.iter().filter(|&&(_, count)| count > 0);
    let reasons = reasons.map(|&(reason, count)| row(reason, grouped(count), ""));
    let total = row("together", grouped(outcome.dropped()), "");
    Section {
        title: "Packets dropped",
        rows: reasons.chain([total]).collect(),
    }
}

fn must_be_zero(count: u64) -> &'static str {
    if count == 0 { "" } else { "MUST BE 0" }
}

fn row(label: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Row {
    Row {
        label: label.into(),
        value: value.into(),
        note: note.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn notes_stand_in_one_column() {
        let table = closing_table(&example::verified());
        let column = |note: &str| {
            let line = table.lines().find(|line| line.contains(note)).expect(note);
            line.split(note).next().map(|before| before.chars().count())
        };
        assert_eq!(
            column("as they were written"),
            column("buffers in use at once")
        );
    }

    #[test]
    fn deadlock_is_told_before_the_figures() {
        let outcome = example::deadlock();
        let table = closing_table(&outcome);
        let (before, _) = table.split_once("\nProgram\n").expect("the figures");
        assert!(before.starts_with("DEADLOCK"), "{before}");
        let deadlock = outcome.deadlock.expect("a deadlock");
        assert!(before.contains(&deadlock.holder), "{before}");
        for wait in &deadlock.chain {
            assert!(before.contains(&format!("{}: for {}", wait.who, wait.waits_for)));
        }
    }

    #[test]
    fn what_must_be_zero_is_marked_when_it_is_not() {
        let mut outcome = example::verified();
        assert!(!closing_table(&outcome).contains("MUST BE 0"));
        outcome.charges_left = 3;
        assert!(closing_table(&outcome).contains("MUST BE 0"));
    }

    #[test]
    fn part_that_outgrew_its_budget_is_marked() {
        let mut outcome = example::verified();
        assert!(!closing_table(&outcome).contains("TOO SMALL"));
        outcome.budget[0].peak = outcome.budget[0].computed + 1;
        assert!(closing_table(&outcome).contains("TOO SMALL"));
    }

    #[test]
    fn run_of_no_time_divides_by_nothing() {
        let outcome = Outcome {
            seconds: 0.0,
            faults: 0,
            ..example::verified()
        };
        assert!(closing_table(&outcome).contains("0/s"));
    }
}
