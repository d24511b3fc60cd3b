//! What happened when: the latency of answers and the fate of requests, in quarters of a second.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::page::escape;
use crate::client::samples::{Outcome, Sample, quantile};

/// Seconds in one bucket.
const BUCKET: f64 = 0.25;
const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 8.0;
/// Where the two parts of the picture begin and end, from above.
const LATENCY: (f64, f64) = (40.0, 150.0);
const FATES: (f64, f64) = (168.0, 228.0);
const HEIGHT: f64 = 262.0;

#[derive(Debug)]
pub struct Timeline {
    title: String,
    seconds: f64,
    buckets: Vec<Bucket>,
    shades: Vec<Shade>,
}

/// Requests that were due in one quarter of a second.
#[derive(Debug)]
struct Bucket {
    /// Of the answers, in milliseconds; NaN when there was none.
    p50: f64,
    p99: f64,
    good: usize,
    /// Answered, with an error.
    refused: usize,
    /// Not answered.
    lost: usize,
}

/// A time to be told apart, in seconds.
#[derive(Debug)]
struct Shade {
    from: f64,
    to: f64,
    label: String,
}

impl Timeline {
    /// With the time of a fault shaded.
    pub fn of(title: &str, samples: &[Sample], start: Instant, fault: (Instant, Instant)) -> Self {
        Self::new(title, samples, start).shade("fault", start, fault)
    }

    pub fn new(title: &str, samples: &[Sample], start: Instant) -> Self {
        let at = |sample: &Sample| sample.due.saturating_duration_since(start).as_secs_f64();
        let last = samples.iter().map(at).fold(0.0, f64::max);
        let mut sorted: Vec<Vec<Sample>> = Vec::new();
        sorted.resize_with((last / BUCKET) as usize + 1, Vec::new);
        for sample in samples {
            sorted[(at(sample) / BUCKET) as usize].push(*sample);
        }
        let buckets: Vec<Bucket> = sorted.iter().map(|samples| Bucket::of(samples)).collect();
        let (title, seconds) = (title.to_owned(), buckets.len() as f64 * BUCKET);
        Self { title, seconds, buckets, shades: Vec::new() }
    }

    /// Tells this time apart. What is no longer than a moment is drawn as one.
    pub fn shade(mut self, label: &str, start: Instant, (from, to): (Instant, Instant)) -> Self {
        let at = |time: Instant| time.saturating_duration_since(start).as_secs_f64();
        self.shades.push(Shade { from: at(from), to: at(to), label: label.to_owned() });
        self
    }

    pub fn to_json(&self) -> Value {
        let finite = |value: f64| value.is_finite().then_some((value * 10.0).round() / 10.0);
        let buckets: Vec<Value> = self
            .buckets
            .iter()
            .map(|b| json!([finite(b.p50), finite(b.p99), b.good, b.refused, b.lost]))
            .collect();
        let shades: Vec<Value> =
            self.shades.iter().map(|shade| json!([shade.label, shade.from, shade.to])).collect();
        json!({
            "bucket_s": BUCKET, "columns": ["p50_ms", "p99_ms", "good", "refused", "unanswered"],
            "buckets": buckets, "shades": shades,
        })
    }

    pub fn svg(&self) -> String {
        let title = escape(&self.title);
        let mut picture = format!(
            "<svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} role=img><title>{title}</title>\
             <text x=0 y=14 font-weight=600>{title}</text>{LEGEND}"
        );
        picture += &self.shades();
        picture += &self.seconds_axis();
        picture += &self.latency();
        picture += &self.fates();
        picture + "</svg>"
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + second / self.seconds.max(BUCKET) * (WIDTH - LEFT - RIGHT)
    }

    fn shades(&self) -> String {
        let shade = |shade: &Shade| {
            let (from, to) = (self.x(shade.from), self.x(shade.to));
            format!(
                "<rect class=shade x={from:.1} width={:.1} y={} height={}></rect><text class=soft x={:.1} y={}>{}</text>",
                (to - from).max(2.0),
                LATENCY.0,
                FATES.1 - LATENCY.0,
                from + 4.0,
                LATENCY.0 - 4.0,
                escape(&shade.label),
            )
        };
        self.shades.iter().map(shade).collect()
    }

    fn seconds_axis(&self) -> String {
        let step = if self.seconds > 30.0 { 5 } else { 2 };
        let ticks = (0..=self.seconds as usize).step_by(step).map(|second| {
            let x = self.x(second as f64);
            format!("<text class=soft x={x:.1} y={} text-anchor=middle>{second} s</text>", FATES.1 + 16.0)
        });
        ticks.collect::<String>()
    }

    /// On a logarithmic scale: what matters lies between a millisecond and ten seconds.
    fn latency(&self) -> String {
        let (top, bottom) = LATENCY;
        let y = |ms: f64| bottom - ms.clamp(1.0, 10_000.0).log10() / 4.0 * (bottom - top);
        let grid = [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")];
        let mut picture: String = grid.iter().map(|(ms, label)| level(y(*ms), label)).collect();
        for (class, of) in [("p99", (|b| b.p99) as fn(&Bucket) -> f64), ("p50", |b| b.p50)] {
            let mut path = String::new();
            let mut gap = true;
            for (number, bucket) in self.buckets.iter().enumerate() {
                let ms = of(bucket);
                if ms.is_finite() {
                    let x = self.x((number as f64 + 0.5) * BUCKET);
                    path += &format!("{}{x:.1} {:.1}", if gap { 'M' } else { 'L' }, y(ms));
                }
                gap = !ms.is_finite();
            }
            picture += &format!("<path class={class} d='{path}'></path>");
        }
        picture
    }

    fn fates(&self) -> String {
        let (top, bottom) = FATES;
        let most = self.buckets.iter().map(|b| b.good + b.refused + b.lost).max().unwrap_or(0).max(1) as f64;
        let width = self.x(BUCKET) - self.x(0.0);
        let per_second = most / BUCKET;
        let mut picture = level(bottom, "0 /s") + &level(top, &format!("{per_second:.0} /s"));
        for (number, bucket) in self.buckets.iter().enumerate() {
            let (x, mut y) = (self.x(number as f64 * BUCKET), bottom);
            for (class, count) in [("good", bucket.good), ("warn", bucket.refused), ("bad", bucket.lost)] {
                let height = count as f64 / most * (bottom - top);
                y -= height;
                if count > 0 {
                    picture += &format!(
                        "<rect class={class} x={x:.1} y={y:.1} width={:.1} height={height:.1}></rect>",
                        width * 0.85
                    );
                }
            }
        }
        picture
    }
}

const LEGEND: &str = "<text x=900 y=14 text-anchor=end class=soft>above: <tspan class=t50>median</tspan> and \
    <tspan class=t99>p99</tspan> of answers · below: requests \
    <tspan class=good>served</tspan>, <tspan class=warn>refused</tspan>, <tspan class=bad>unanswered</tspan></text>";

fn level(y: f64, label: &str) -> String {
    format!(
        "<line class=grid x1={LEFT} x2={} y1={y:.1} y2={y:.1}></line><text class=soft x={} y={:.1} text-anchor=end>{label}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0
    )
}

impl Bucket {
    fn of(samples: &[Sample]) -> Self {
        let is_answer = |sample: &&Sample| matches!(sample.outcome, Outcome::Answered { .. });
        let answers = || samples.iter().filter(is_answer);
        let good = samples.iter().filter(|sample| sample.is_good()).count();
        let answered = answers().count();
        Self {
            p50: quantile(answers(), 0.5),
            p99: quantile(answers(), 0.99),
            good,
            refused: answered - good,
            lost: samples.len() - answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::samples::Kind;

    #[tokio::test]
    async fn requests_stand_where_they_were_due_with_their_fate() {
        let start = Instant::now();
        let sample = |ms, outcome| Sample {
            kind: Kind::Read,
            due: start + Duration::from_millis(ms),
            took: Duration::from_millis(40),
            outcome,
        };
        let answered = |status| Outcome::Answered { status, retry_after: true, sets_cookie: false };
        let samples = [sample(10, answered(200)), sample(600, answered(503)), sample(610, Outcome::Lost)];
        let fault = (start + Duration::from_millis(500), start + Duration::from_millis(700));
        let timeline = Timeline::of("a <fault>", &samples, start, fault);
        let json = timeline.to_json();
        assert_eq!(
            json["buckets"],
            json!([[40.0, 40.0, 1, 0, 0], [null, null, 0, 0, 0], [40.0, 40.0, 0, 1, 1]])
        );
        assert_eq!(json["shades"][0], json!(["fault", 0.5, 0.7]));
        let svg = timeline.svg();
        assert!(svg.contains("a &lt;fault&gt;") && !svg.contains("NaN") && svg.contains("class=shade"));
    }
}
