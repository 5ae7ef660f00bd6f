//! One chart over time, as inline SVG: axes, lines or stacked areas, marks, a shaded span.

use core::fmt::Write as _;
use core::ops::Range;

use super::html::escape;
use super::table::grouped;

/// Size of the drawing, and of its margins, in SVG units (pixels at full width).
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// Labels of marks stand at least this far apart.
const LABEL_HEIGHT: f64 = 14.0;

/// What to draw. Every series has one value for each moment.
pub(super) struct Chart<'a> {
    /// Moments, in seconds since the start of the run, ascending.
    pub(super) times: &'a [f64],
    /// What is counted, for the vertical axis.
    pub(super) unit: &'a str,
    pub(super) series: &'a [Series],
    /// Whether the series are parts of a whole, drawn one upon the other.
    pub(super) stacked: bool,
    /// Levels to compare with.
    pub(super) marks: &'a [Mark],
    /// The lowest part is set apart, up to here.
    pub(super) band: Option<f64>,
    /// Larger values are cut off.
    pub(super) limit: Option<f64>,
    /// A span of time that stands out, and why.
    pub(super) span: Option<(Range<f64>, &'static str)>,
}

/// Values over time.
pub(super) struct Series {
    pub(super) name: String,
    /// Which colour, by its number in the style sheet.
    pub(super) colour: usize,
    pub(super) values: Vec<f64>,
}

/// A horizontal line.
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) value: f64,
}

impl Chart<'_> {
    /// Draws it. Needs at least two moments.
    pub(super) fn svg(&self) -> String {
        let scale = Scale::new(self);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" \
             data-left=\"{LEFT}\" data-right=\"{}\" data-top=\"{TOP}\" data-bottom=\"{}\" \
             data-end=\"{}\">",
            escape(self.unit),
            WIDTH - RIGHT,
            HEIGHT - BOTTOM,
            scale.end,
        );
        self.draw_span(&mut svg, &scale);
        self.draw_band(&mut svg, &scale);
        self.draw_axes(&mut svg, &scale);
        self.draw_series(&mut svg, &scale);
        self.draw_marks(&mut svg, &scale);
        put(
            &mut svg,
            format_args!(
                "<line class=\"cursor\" x1=\"-9\" x2=\"-9\" y1=\"{TOP}\" y2=\"{}\"/></svg>",
                HEIGHT - BOTTOM,
            ),
        );
        svg
    }

    fn draw_span(&self, svg: &mut String, scale: &Scale) {
        let Some((span, reason)) = &self.span else {
            return;
        };
        let (x, end) = (scale.x(span.start), scale.x(span.end));
        let (width, height) = (end - x, HEIGHT - TOP - BOTTOM);
        put(
            svg,
            format_args!(
                "<rect class=\"span\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>\
             <text class=\"span\" x=\"{:.1}\" y=\"{}\">{}</text>",
                x + 6.0,
                TOP + 28.0,
                escape(reason),
            ),
        );
    }

    fn draw_band(&self, svg: &mut String, scale: &Scale) {
        let Some(top) = self.band else { return };
        let (y, bottom) = (scale.y(top), scale.y(0.0));
        let (width, height) = (WIDTH - LEFT - RIGHT, bottom - y);
        put(
            svg,
            format_args!(
                "<rect class=\"band\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width}\" height=\"{height:.1}\"/>"
            ),
        );
    }

    fn draw_axes(&self, svg: &mut String, scale: &Scale) {
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let bottom = scale.y(0.0);
        for value in ticks(scale.top, 4) {
            let y = scale.y(value);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    left - 8.0,
                    y + 4.0,
                    tick(value),
                ),
            );
        }
        for value in ticks(scale.end, 10) {
            put(
                svg,
                format_args!(
                    "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    scale.x(value),
                    bottom + 18.0,
                    tick(value),
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{}\">seconds</text>\
             <text class=\"tick\" transform=\"translate(12 {}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
                right + 10.0,
                bottom + 18.0,
                (TOP + bottom) / 2.0,
                escape(self.unit),
            ),
        );
    }

    fn draw_series(&self, svg: &mut String, scale: &Scale) {
        let mut floor = vec![0.0; self.times.len()];
        for series in self.series {
            let base = floor.clone();
            let upper: Vec<f64> = series
                .values
                .iter()
                .zip(&base)
                .map(|(v, b)| v + b)
                .collect();
            let line = scale.path(self.times, &upper);
            let colour = series.colour;
            if self.stacked {
                let back: Vec<String> = self
                    .times
                    .iter()
                    .zip(&base)
                    .rev()
                    .map(|(&t, &v)| format!("L{:.1} {:.1}", scale.x(t), scale.y(v)))
                    .collect();
                let back = back.concat();
                put(
                    svg,
                    format_args!("<path class=\"area c{colour}\" d=\"{line}{back}Z\"/>"),
                );
                floor = upper;
            }
            put(
                svg,
                format_args!("<path class=\"line c{colour}\" d=\"{line}\"/>"),
            );
        }
    }

    /// The labels stand beside their lines, pushed apart where those are too near.
    fn draw_marks(&self, svg: &mut String, scale: &Scale) {
        let mut marks: Vec<&Mark> = self.marks.iter().filter(|m| m.value <= scale.top).collect();
        marks.sort_by(|a, b| a.value.total_cmp(&b.value));
        let mut lowest_free = scale.y(0.0);
        for mark in marks {
            let y = scale.y(mark.value);
            let label = y.min(lowest_free);
            lowest_free = label - LABEL_HEIGHT;
            let right = WIDTH - RIGHT;
            put(
                svg,
                format_args!(
                    "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <path class=\"mark\" d=\"M{right} {y:.1}L{} {label:.1}\"/>\
                 <text class=\"mark\" x=\"{}\" y=\"{:.1}\">{} {}</text>",
                    right + 10.0,
                    right + 13.0,
                    label + 4.0,
                    escape(&mark.name),
                    tick(mark.value),
                ),
            );
        }
    }
}

/// From values to places. Time counts from 0, the start of the run.
struct Scale {
    end: f64,
    top: f64,
}

impl Scale {
    fn new(chart: &Chart<'_>) -> Scale {
        let moments = 0..chart.times.len();
        let highest = if chart.stacked {
            let sum = |i: usize| chart.series.iter().map(|s| s.values[i]).sum();
            moments.map(sum).fold(0.0, f64::max)
        } else {
            chart
                .series
                .iter()
                .flat_map(|s| &s.values)
                .copied()
                .fold(0.0, f64::max)
        };
        let marks = chart.marks.iter().map(|mark| mark.value * 1.1);
        let highest = marks.fold(highest, f64::max);
        Scale {
            end: chart.times.last().copied().unwrap_or(1.0),
            top: chart
                .limit
                .map_or(highest, |limit| highest.min(limit))
                .max(1.0)
                * 1.04,
        }
    }

    fn x(&self, time: f64) -> f64 {
        let part = time / self.end.max(f64::EPSILON);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    /// What is too high is drawn at the upper edge.
    fn y(&self, value: f64) -> f64 {
        let part = (value / self.top).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    fn path(&self, times: &[f64], values: &[f64]) -> String {
        let mut path = String::new();
        for (i, (&time, &value)) in times.iter().zip(values).enumerate() {
            let step = if i == 0 { 'M' } else { 'L' };
            put(
                &mut path,
                format_args!("{step}{:.1} {:.1}", self.x(time), self.y(value)),
            );
        }
        path
    }
}

/// Round values from 0 up to `top`, about `count` steps of 1, 2 or 5 times a power of ten.
fn ticks(top: f64, count: usize) -> impl Iterator<Item = f64> {
    let rough = (top / count as f64).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    // Each bound is the geometric mean of its neighbours: the nearest of them is taken.
    let factor = match rough / power {
        ..1.414 => 1.0,
        ..3.162 => 2.0,
        ..7.071 => 5.0,
        _ => 10.0,
    };
    let step = factor * power;
    (0..)
        .map(move |i| f64::from(i) * step)
        .take_while(move |&value| value <= top)
}

fn tick(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        grouped(value as u64)
    } else {
        format!("{value:.1}")
    }
}

fn put(text: &mut String, what: core::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart<'a>(times: &'a [f64], series: &'a [Series], marks: &'a [Mark]) -> Chart<'a> {
        let (stacked, band, limit, span) = (false, None, None, None);
        Chart {
            times,
            unit: "frames",
            series,
            stacked,
            marks,
            band,
            limit,
            span,
        }
    }

    fn series(values: &[f64]) -> Series {
        Series {
            name: "s".into(),
            colour: 0,
            values: values.to_vec(),
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let all = |top, count| ticks(top, count).collect::<Vec<_>>();
        assert_eq!(all(100.0, 4), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(all(7.0, 4), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(all(2.0, 4), [0.0, 0.5, 1.0, 1.5, 2.0]);
        for top in [1.0, 3.0, 17.0, 999.0, 123_456.0] {
            assert!((3..=7).contains(&all(top, 4).len()), "{top}");
        }
    }

    #[test]
    fn line_runs_from_edge_to_edge_and_up_with_its_value() {
        let svg = chart(&[0.0, 10.0], &[series(&[0.0, 100.0])], &[]).svg();
        let path = svg.split("class=\"line c0\" d=\"M").nth(1).expect("a line");
        let numbers: Vec<f64> = path
            .split('"')
            .next()
            .expect("a path")
            .split([' ', 'L'])
            .map(|n| n.parse().expect("a number"))
            .collect();
        assert_eq!(numbers[..3], [LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT]);
        assert!(numbers[3] < TOP + 10.0, "{numbers:?}");
    }

    #[test]
    fn stacked_series_stand_on_each_other() {
        let parts = [series(&[10.0, 10.0]), series(&[30.0, 30.0])];
        let chart = Chart {
            stacked: true,
            ..chart(&[0.0, 1.0], &parts, &[])
        };
        let top = Scale::new(&chart).top;
        assert!((40.0..50.0).contains(&top), "{top}");
    }

    #[test]
    fn labels_of_near_marks_do_not_overlap() {
        let marks = [10.0, 11.0, 12.0].map(|value| Mark {
            name: "m".into(),
            value,
        });
        let svg = chart(&[0.0, 1.0], &[series(&[0.0, 1000.0])], &marks).svg();
        let labels: Vec<f64> = svg
            .split("<text class=\"mark\"")
            .skip(1)
            .filter_map(|text| text.split("y=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(labels.len(), 3);
        assert!(
            labels.windows(2).all(|w| w[0] - w[1] >= LABEL_HEIGHT - 0.2),
            "{labels:?}"
        );
    }

    #[test]
    fn nothing_but_zeros_can_be_drawn() {
        let svg = chart(&[0.0, 1.0], &[series(&[0.0, 0.0])], &[]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
