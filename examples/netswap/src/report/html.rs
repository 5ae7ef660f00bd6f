//! The findings as one HTML page that needs nothing else: style, drawings and script are in it.

use core::ops::Range;

use serde_json::{Value, json};

use super::chart::{Chart, Mark, Series};
use super::table::{self, Row, Section, grouped};
use super::{Outcome, Sample, Timeline, Verdict};

/// The page around the findings; `{{name}}` is replaced.
const TEMPLATE: &str = include_str!("report.html");

/// More points than this cannot be told apart on a screen.
const POINTS: usize = 300;
/// Rates are those of the last half second: the flood comes in bursts a tenth of a second apart.
const RATE_SECONDS: f64 = 0.5;

/// Reasons for drops that get a colour of their own; the rest is "other".
const REASONS: usize = 6;

/// The page, ready to be written to a file.
pub(crate) fn page(outcome: &Outcome) -> String {
    let verdict = outcome.verdict;
    let class = match verdict {
        Verdict::Verified => "good",
        Verdict::NoProgress | Verdict::DataWrong | Verdict::AccountingWrong => "bad",
        Verdict::Error => "cut",
    };
    let view = View::new(outcome);
    let figures = view.figures();
    render(&[
        (
            "title",
            format!("{}: swap over NFS under a packet flood", verdict.title()),
        ),
        ("class", class.into()),
        ("verdict", escape(verdict.title())),
        ("sentence", escape(verdict.sentence())),
        (
            "detail",
            outcome.detail.as_deref().map(paragraph).unwrap_or_default(),
        ),
        ("subtitle", escape(&subtitle(outcome))),
        ("deadlock", deadlock(outcome)),
        ("tiles", tiles(outcome)),
        (
            "charts",
            figures.iter().map(|figure| figure.html(&view)).collect(),
        ),
        (
            "table",
            table::sections(outcome).iter().map(section).collect(),
        ),
        ("data", script_json(&view.data(&figures))),
    ])
}

/// `text` so that it means itself in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Fills the template in one pass, so that nothing in a value is taken for a place to fill.
fn render(values: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        page += before;
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        // The template is part of this program, and a test fills it.
        let value = values
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value);
        page += value.unwrap_or_else(|| panic!("the template asks for {name:?}"));
        rest = after;
    }
    page + rest
}

/// JSON cannot end the script element that it stands in once it has no `<`.
fn script_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>", escape(text))
}

fn subtitle(outcome: &Outcome) -> String {
    let setup = &outcome.setup;
    let mib = |frames: u64| frames / 256;
    let without = match setup.without.as_slice() {
        [] => String::new(),
        left_out => format!(" · without {}", left_out.join(", ")),
    };
    format!(
        "{} MiB of memory · {} MiB working set · {} unrelated packets per second · {:.1} s · \
         seed {}{without}",
        mib(outcome.frames.total),
        mib(setup.working_set),
        grouped(outcome.flood.pps),
        outcome.seconds,
        setup.seed,
    )
}

fn deadlock(outcome: &Outcome) -> String {
    let Some(deadlock) = &outcome.deadlock else {
        return String::new();
    };
    let links: String = deadlock
        .chain
        .iter()
        .map(|wait| {
            let (who, waits_for) = (escape(&wait.who), escape(&wait.waits_for));
            format!("<li><b>{who}</b><span>waits for</span><i>{waits_for}</i></li>")
        })
        .collect();
    format!(
        "<section class=\"deadlock\"><h2>Who waits for whom</h2>\
         <p class=\"holder\">The memory is held by <b>{}</b></p>\
         <ol>{links}</ol><p class=\"closed\">… and so round again: nobody can move.</p></section>",
        escape(&deadlock.holder),
    )
}

fn tiles(outcome: &Outcome) -> String {
    let frames = &outcome.frames;
    let emergency: u64 = outcome
        .drops
        .iter()
        .filter(|(reason, _)| reason.starts_with("emergency"))
        .map(|&(_, count)| count)
        .sum();
    [
        (
            "pages verified",
            grouped(outcome.pages_verified),
            format!("{} wrong", grouped(outcome.mismatches)),
        ),
        (
            "median fault",
            format!("{} µs", grouped(outcome.fault_us.p50)),
            format!("99 %: {} µs", grouped(outcome.fault_us.p99)),
        ),
        (
            "fewest frames free",
            grouped(frames.min_free),
            format!(
                "of {}, reserve {}",
                grouped(frames.total),
                grouped(frames.reserve)
            ),
        ),
        (
            "packets dropped",
            grouped(outcome.dropped()),
            format!("{} from the reserve", grouped(emergency)),
        ),
        (
            "swap packets dropped",
            grouped(outcome.emergency.vmio_dropped),
            format!("{} charges left", grouped(outcome.charges_left)),
        ),
    ]
    .map(|(label, value, note)| {
        format!("<div><span>{label}</span><b>{value}</b><small>{note}</small></div>")
    })
    .concat()
}

fn section(section: &Section) -> String {
    let rows: String = section
        .rows
        .iter()
        .map(|Row { label, value, note }| {
            let (label, value, note) = (escape(label), escape(value), escape(note));
            if note.is_empty() && value.len() > 30 {
                format!("<tr><th>{label}</th><td class=\"text\" colspan=\"2\">{value}</td></tr>")
            } else {
                format!("<tr><th>{label}</th><td>{value}</td><td class=\"note\">{note}</td></tr>")
            }
        })
        .collect();
    format!(
        "<section><h3>{}</h3><table>{rows}</table></section>",
        escape(section.title)
    )
}

/// A chart with its words.
struct Figure {
    title: &'static str,
    caption: String,
    unit: &'static str,
    series: Vec<Series>,
    stacked: bool,
    marks: Vec<Mark>,
    band: Option<f64>,
    limit: Option<f64>,
    /// Shown beside the series under the pointer, not drawn.
    extra: Vec<Series>,
}

impl Figure {
    fn html(&self, view: &View<'_>) -> String {
        let chart = Chart {
            times: &view.times,
            unit: self.unit,
            series: &self.series,
            stacked: self.stacked,
            marks: &self.marks,
            band: self.band,
            limit: self.limit,
            span: view.stuck.clone().map(|span| (span, "nothing moves")),
        };
        let legend: String = self
            .series
            .iter()
            .map(|s| format!("<span class=\"c{}\">{}</span>", s.colour, escape(&s.name)))
            .collect();
        format!(
            "<figure><figcaption><h3>{}</h3><p>{}</p><div class=\"legend\">{legend}</div>\
             </figcaption><div class=\"plot\">{}</div></figure>",
            escape(self.title),
            escape(&self.caption),
            chart.svg(),
        )
    }
}

/// The timeline, thinned to what can be seen, counters turned into rates.
struct View<'a> {
    outcome: &'a Outcome,
    samples: Vec<Sample>,
    times: Vec<f64>,
    /// The end of the run, if nothing happened in it.
    stuck: Option<Range<f64>>,
}

impl View<'_> {
    fn new(outcome: &Outcome) -> View<'_> {
        let samples = thin(&outcome.timeline);
        let times = samples.iter().map(|sample| sample.at).collect();
        let stuck = stuck(outcome);
        View {
            outcome,
            samples,
            times,
            stuck,
        }
    }

    fn figures(&self) -> Vec<Figure> {
        if self.samples.len() < 2 {
            return Vec::new();
        }
        vec![self.memory(), self.emergency(), self.drops(), self.paging()]
    }

    fn memory(&self) -> Figure {
        let frames = &self.outcome.frames;
        let reserve = frames.reserve as f64;
        let mark = |name: &str, above: u64| Mark {
            name: name.into(),
            value: reserve + above as f64,
        };
        // What matters happens near the marks; the empty machine of the first seconds may be cut.
        let limit = 2.0 * (reserve + frames.high as f64);
        Figure {
            title: "Free frames",
            caption: format!(
                "Of {} in all. Ordinary allocations never take the last {}: that is the reserve. \
                 Reclaim starts below low and goes on up to high. The axis is cut at {}.",
                grouped(frames.total),
                grouped(frames.reserve),
                grouped(limit as u64),
            ),
            unit: "frames",
            series: vec![self.gauge("free", 0, |sample| sample.free)],
            stacked: false,
            marks: vec![
                mark("reserve", 0),
                mark("min", frames.min),
                mark("low", frames.low),
                mark("high", frames.high),
            ],
            band: Some(reserve),
            limit: Some(limit),
            extra: vec![
                self.gauge("reserve", 0, |sample| sample.reserve),
                self.gauge("resident pages", 0, |sample| sample.resident),
            ],
        }
    }

    fn emergency(&self) -> Figure {
        Figure {
            title: "Packets in reserve memory",
            caption: "Emergency skbs in use: received because no other memory was left, and kept \
                      only if they serve the swap traffic."
                .into(),
            unit: "skbs",
            series: vec![self.gauge("in use", 1, |sample| sample.emergency)],
            stacked: true,
            marks: Vec::new(),
            band: None,
            limit: None,
            extra: Vec::new(),
        }
    }

    fn drops(&self) -> Figure {
        let reasons = &self.outcome.timeline.reasons;
        let column = |sample: &Sample, i: usize| sample.drops.get(i).copied().unwrap_or(0);
        let total = |i: usize| self.samples.last().map_or(0, |sample| column(sample, i));
        let mut order: Vec<usize> = (0..reasons.len()).filter(|&i| total(i) > 0).collect();
        order.sort_by_key(|&i| core::cmp::Reverse(total(i)));
        let (named, rest) = order.split_at(order.len().min(REASONS));

        let mut series: Vec<Series> = named
            .iter()
            .enumerate()
            .map(|(colour, &i)| self.rate(reasons[i], colour, |sample| column(sample, i)))
            .collect();
        if !rest.is_empty() {
            let others = |sample: &Sample| rest.iter().map(|&i| column(sample, i)).sum();
            series.push(self.rate("other", REASONS, others));
        }
        Figure {
            title: "Packets dropped",
            caption: "By reason, one upon the other. Those called emergency were received into \
                      reserve memory and gave it back at once."
                .into(),
            unit: "packets/s",
            series,
            stacked: true,
            marks: Vec::new(),
            band: None,
            limit: None,
            extra: Vec::new(),
        }
    }

    fn paging(&self) -> Figure {
        Figure {
            title: "Paging",
            caption: "Page faults answered, pages read from the server and pages written to it."
                .into(),
            unit: "per second",
            series: vec![
                self.rate("faults", 0, |sample| sample.faults),
                self.rate("pages in", 2, |sample| sample.pages_in),
                self.rate("pages out", 1, |sample| sample.pages_out),
            ],
            stacked: false,
            marks: Vec::new(),
            band: None,
            limit: None,
            extra: Vec::new(),
        }
    }

    fn gauge(&self, name: &str, colour: usize, of: impl Fn(&Sample) -> u64) -> Series {
        let values = self
            .samples
            .iter()
            .map(|sample| of(sample) as f64)
            .collect();
        Series {
            name: name.into(),
            colour,
            values,
        }
    }

    fn rate(&self, name: &str, colour: usize, of: impl Fn(&Sample) -> u64) -> Series {
        let rates = self.samples.iter().enumerate().skip(1).map(|(i, now)| {
            let before = &self.samples[..i];
            let first = before.partition_point(|sample| sample.at < now.at - RATE_SECONDS);
            let then = &before[first.min(i - 1)];
            let seconds = (now.at - then.at).max(1e-6);
            of(now).saturating_sub(of(then)) as f64 / seconds
        });
        let mut values: Vec<f64> = rates.collect();
        // The first moment has none before it.
        values.insert(0, values.first().copied().unwrap_or(0.0));
        Series {
            name: name.into(),
            colour,
            values,
        }
    }

    /// What the script shows under the pointer.
    fn data(&self, figures: &[Figure]) -> Value {
        let rounded = |values: &[f64]| values.iter().map(|v| v.round()).collect::<Vec<_>>();
        let series = |s: &Series| json!({ "name": s.name, "values": rounded(&s.values) });
        let charts: Vec<Vec<Value>> = figures
            .iter()
            .map(|figure| {
                figure
                    .series
                    .iter()
                    .chain(&figure.extra)
                    .map(series)
                    .collect()
            })
            .collect();
        json!({ "times": self.times, "charts": charts })
    }
}

/// At most [`POINTS`] samples: of each group the last one, with the extremes of the group.
fn thin(timeline: &Timeline) -> Vec<Sample> {
    let group = timeline.samples.len().div_ceil(POINTS).max(1);
    let merged = timeline.samples.chunks(group).filter_map(|chunk| {
        Some(Sample {
            free: chunk.iter().map(|sample| sample.free).min()?,
            emergency: chunk.iter().map(|sample| sample.emergency).max()?,
            ..chunk.last()?.clone()
        })
    });
    merged.collect()
}

/// From the last sample at which something moved to the end, in a run that got stuck.
fn stuck(outcome: &Outcome) -> Option<Range<f64>> {
    let samples = &outcome.timeline.samples;
    let last = samples
        .last()
        .filter(|_| outcome.verdict == Verdict::NoProgress)?;
    let work = |sample: &Sample| (sample.faults, sample.pages_in, sample.pages_out);
    let first = samples.iter().find(|sample| work(sample) == work(last))?;
    Some(first.at..last.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn page_fetches_nothing() {
        for outcome in [example::verified(), example::deadlock()] {
            let page = page(&outcome);
            for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "//"] {
                let found = page.replace("nfs://", "").contains(reference);
                assert!(!found, "{reference}");
            }
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        let mut outcome = example::deadlock();
        let evil = "</script><script>alert(\"1\")</script>'&{{table}}";
        outcome.detail = Some(evil.into());
        outcome.setup.store = evil.into();
        outcome.setup.without = vec!["<i>\"&'"];
        outcome.drops = vec![("<b>", 1)];
        outcome.timeline.reasons[0] = "</script><b>";
        let deadlock = outcome.deadlock.as_mut().expect("a deadlock");
        deadlock.holder = evil.into();
        deadlock.chain[0].who = evil.into();
        let page = page(&outcome);
        assert!(!page.contains("<script>alert") && !page.contains("</script><b>"));
        assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(&quot;1&quot;)"));
        assert_eq!(
            page.matches("</script>").count(),
            TEMPLATE.matches("</script>").count()
        );
        assert!(
            page.contains("{{table}}"),
            "a value was taken for a place to fill"
        );
    }

    #[test]
    fn deadlock_is_explained_and_shaded() {
        let outcome = example::deadlock();
        let page = page(&outcome);
        let deadlock = outcome.deadlock.expect("a deadlock");
        assert!(page.contains(&escape(&deadlock.holder)));
        for wait in deadlock.chain {
            assert!(page.contains(&escape(&wait.who)) && page.contains(&escape(&wait.waits_for)));
        }
        assert!(page.contains("class=\"span\""));
        assert!(!super::page(&example::verified()).contains("class=\"span\""));
    }

    #[test]
    fn every_figure_and_every_row_is_there() {
        let outcome = example::verified();
        let page = page(&outcome);
        assert_eq!(page.matches("<svg").count(), 4);
        for section in table::sections(&outcome) {
            for row in section.rows {
                assert!(page.contains(&format!("<th>{}</th>", escape(&row.label))));
                assert!(page.contains(&escape(&row.value)));
            }
        }
    }

    #[test]
    fn run_without_samples_gives_a_page_without_charts() {
        let outcome = Outcome {
            timeline: Timeline::default(),
            ..example::verified()
        };
        assert!(!page(&outcome).contains("<svg"));
    }

    #[test]
    fn thinning_keeps_the_extremes_and_the_counters() {
        let mut timeline = Timeline::default();
        for i in 0..10_000_u64 {
            let (free, emergency) = if i == 5_000 { (1, 99) } else { (50, 2) };
            let at = i as f64;
            timeline.samples.push(Sample {
                at,
                free,
                emergency,
                faults: i,
                ..Sample::default()
            });
        }
        let thinned = thin(&timeline);
        assert!(thinned.len() <= POINTS, "{}", thinned.len());
        assert_eq!(thinned.iter().map(|s| s.free).min(), Some(1));
        assert_eq!(thinned.iter().map(|s| s.emergency).max(), Some(99));
        assert_eq!(thinned.last().map(|s| s.faults), Some(9_999));
    }

    /// `NETSWAP_SAMPLE_PAGES=DIR cargo test sample_pages` writes two, to be looked at.
    #[test]
    fn sample_pages_can_be_looked_at() {
        let Some(folder) = std::env::var_os("NETSWAP_SAMPLE_PAGES") else {
            return;
        };
        let folder = std::path::PathBuf::from(folder);
        for (name, outcome) in [
            ("verified", example::verified()),
            ("deadlock", example::deadlock()),
        ] {
            let file = folder.join(name).with_extension("html");
            std::fs::write(file, page(&outcome)).expect("write the page");
        }
    }
}
