//! What came of a case, held against what must.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::Instant;

use super::{
    case::{Case, Fate},
    fault::Fault,
};
use crate::{
    client::samples::{Kind, Outcome, Sample, quantile, tally},
    ground::{Ground, metric},
    limits,
    report::{Row, timeline::Timeline},
};

/// The objective that the error budget belongs to: so much of 30 days may fail.
const BUDGET: f64 = 0.001;
const SECONDS_OF_30_DAYS: f64 = 30.0 * 24.0 * 3600.0;

/// A drill that comes so late to its work says little of the server.
const HELD_UP: Duration = Duration::from_millis(100);

/// Everything that was seen of a case.
pub struct Seen {
    /// Requests a second.
    pub rate: f64,
    pub start: Instant,
    /// Of the fault.
    pub begin: Instant,
    /// Of the fault.
    pub end: Instant,
    pub stop: Instant,
    pub samples: Vec<Sample>,
    pub probes: Vec<Sample>,
    pub before: Gauges,
    /// None when the server could not say.
    pub during: Option<Gauges>,
    pub after: Gauges,
    /// Of the upstream, until the end of the fault and after it.
    pub calls: (usize, usize),
    /// The longest that the drill itself was held up.
    pub lag: Duration,
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    memory: f64,
    descriptors: f64,
    spans_dropped: f64,
    lines_dropped: f64,
}

impl Gauges {
    pub async fn read(ground: &Ground) -> Result<Self> {
        let of = async |name| metric(ground.ops_address(), name).await;
        Ok(Self {
            memory: of("process_resident_memory_bytes").await? / f64::from(1 << 20),
            descriptors: of("process_open_fds").await?,
            spans_dropped: of("spans_dropped_total").await?,
            lines_dropped: of("log_lines_dropped_total").await?,
        })
    }
}

impl Seen {
    /// Those that the fault may have met: under way when it began, or due later.
    fn met(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.end() >= self.begin)
    }

    /// Seconds from the end of the fault to the last request that was no good; NaN when it never was well again.
    fn back(&self) -> f64 {
        let bad = self.samples.iter().filter(|sample| !sample.is_good()).map(|sample| sample.due).max();
        let Some(last) = bad.filter(|last| *last > self.end) else { return 0.0 };
        let well = (self.stop - last).as_secs_f64() > 1.0;
        if well { (last - self.end).as_secs_f64() } else { f64::NAN }
    }

    fn slowest(&self) -> f64 {
        self.met().map(|sample| sample.took.as_secs_f64()).fold(0.0, f64::max)
    }

    /// Good answers of 100, from the begin of the fault until all is well, and for a second at least.
    fn served(&self, back: f64) -> f64 {
        let well = self.end + Duration::try_from_secs_f64(back).unwrap_or_default();
        let over = well.max(self.begin + Duration::from_secs(1));
        let met = || self.samples.iter().filter(|sample| (self.begin..=over).contains(&sample.due));
        100.0 * met().filter(|sample| sample.is_good()).count() as f64 / met().count().max(1) as f64
    }

    /// What the case has cost of a month's error budget, in percent.
    fn burnt(&self) -> f64 {
        let failed = self.samples.iter().filter(|sample| !sample.is_good()).count() as f64;
        100.0 * failed / (self.rate * SECONDS_OF_30_DAYS * BUDGET)
    }
}

pub fn row(case: &Case, seen: &Seen) -> Row {
    let (slowest, back, p99) = (seen.slowest(), seen.back(), quantile(seen.met(), 0.99));
    let (served, burnt) = (seen.served(back), seen.burnt());
    let mut misses: Vec<String> =
        [case.answer.miss(slowest), case.back.miss(back)].into_iter().flatten().collect();
    misses.extend(refusals(case, seen));
    misses.extend(fates(case, seen));
    misses.extend(probes(case, seen));
    misses.extend(besides(case, seen));
    if !misses.is_empty() && seen.lag > HELD_UP {
        misses.push(format!(
            "the drill itself was held up for {:?}: the machine is busy with other things",
            seen.lag
        ));
    }
    Row {
        name: case.name.to_owned(),
        cells: vec![
            format!("{slowest:.2}"),
            format!("{back:.2}"),
            format!("{served:.1}"),
            format!("{burnt:.3}"),
            format!("{p99:.0}"),
            seen.samples.len().to_string(),
        ],
        misses,
        point: Some((back, case.back.value())),
        detail: json!({
            "rate": seen.rate, "slowest_s": slowest, "back_s": back, "served_percent": served, "budget_percent": burnt,
            "p99_ms": p99, "answers": tally(seen.met()), "upstream_calls": seen.calls, "held_up_s": seen.lag.as_secs_f64(),
            "gauges": format!("{:?}, {:?}, {:?}", seen.before, seen.during, seen.after),
        }),
        over_time: Some(Timeline::of(case.name, &seen.samples, seen.start, (seen.begin, seen.end))),
        ..Row::default()
    }
}

/// Whatever is refused, is refused as it must be.
fn refusals(case: &Case, seen: &Seen) -> Vec<String> {
    let mut misses = Vec::new();
    let before = seen.samples.iter().filter(|sample| sample.end() < seen.begin && !sample.is_good());
    let before = tally(before);
    if !before.is_empty() {
        misses.push(format!("not well before the fault: {before:?}"));
    }
    let odd = tally(seen.met().filter(|sample| !sample.is_good() && !is_honest(case, sample)));
    if !odd.is_empty() {
        misses.push(format!("refused, but not as it must be: {odd:?}"));
    }
    misses
}

/// 503 with Retry-After, or 504, with no cookie touched; 502 for the upstream's sake; 401 where the session is lost.
pub fn is_honest(case: &Case, sample: &Sample) -> bool {
    let Outcome::Answered { status, retry_after, sets_cookie } = sample.outcome else { return false };
    let fits = match status {
        503 => retry_after,
        504 => true,
        502 => sample.kind == Kind::Preview,
        401 => case.fault == Fault::RedisFlushed,
        _ => false,
    };
    fits && !sets_cookie
}

fn fates(case: &Case, seen: &Seen) -> Vec<String> {
    let mut misses = Vec::new();
    for kind in [Kind::Anonymous, Kind::Session, Kind::Read, Kind::Write, Kind::Preview] {
        let of_kind = || seen.met().filter(|sample| sample.kind == kind);
        let refused = tally(of_kind().filter(|sample| !sample.is_good()));
        match case.fates.of(kind) {
            Fate::Served if !refused.is_empty() => {
                misses.push(format!("{kind:?} requests should not have felt it: {refused:?}"));
            }
            Fate::Refused if refused.is_empty() && of_kind().next().is_some() => {
                misses.push(format!("{kind:?} requests did not feel it: the fault is none"));
            }
            _ => {}
        }
    }
    misses
}

fn probes(case: &Case, seen: &Seen) -> Vec<String> {
    let limit = if case.fault == Fault::Stopped { &limits::ANSWER_STOPPED } else { &limits::PROBE };
    let slowest = seen.probes.iter().map(|sample| sample.took.as_secs_f64()).fold(0.0, f64::max);
    let bad = tally(seen.probes.iter().filter(|sample| !sample.is_good()));
    let bad = (!bad.is_empty()).then(|| format!("/healthz: {bad:?}"));
    limit.miss(slowest).into_iter().chain(bad).collect()
}

/// What some of the faults must show or leave besides.
fn besides(case: &Case, seen: &Seen) -> Vec<String> {
    let Seen { before, after, .. } = seen;
    let lost = |what: &str, rise: f64| (rise <= 0.0).then(|| format!("no {what} was counted as dropped"));
    match case.fault {
        Fault::CollectorRefused | Fault::CollectorSilent => {
            let dropped = lost("span", after.spans_dropped - before.spans_dropped);
            [dropped, unfelt(seen)].into_iter().flatten().collect()
        }
        Fault::Stdout => {
            let dropped = lost("line", after.lines_dropped - before.lines_dropped);
            [dropped, unfelt(seen)].into_iter().flatten().collect()
        }
        Fault::Resets => {
            limits::DESCRIPTORS_KEPT.miss(after.descriptors - before.descriptors).into_iter().collect()
        }
        Fault::Bodies => {
            let most = seen.during.map_or(f64::NAN, |during| during.memory - before.memory);
            limits::BODIES_MEMORY.miss(most).into_iter().collect()
        }
        Fault::Upstream(_) => {
            let previews = || seen.samples.iter().filter(|sample| sample.kind == Kind::Preview);
            let open = previews().any(|sample| sample.how() == "503");
            let open = (!open).then(|| "the breaker never opened".to_owned());
            // Those of the warm-up were calls too.
            let asked = previews().filter(|sample| sample.due < seen.end).count() as f64 + 8.0;
            let asked_after = previews().filter(|sample| sample.end() >= seen.end).count() as f64;
            let calls = [seen.calls.0 as f64 / asked, seen.calls.1 as f64 / asked_after];
            open.into_iter()
                .chain(calls.into_iter().filter_map(|calls| limits::OUTBOUND.miss(calls)))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn unfelt(seen: &Seen) -> Option<String> {
    let before = seen.samples.iter().filter(|sample| sample.end() < seen.begin);
    let during = seen.samples.iter().filter(|sample| (seen.begin..seen.end).contains(&sample.due));
    limits::FELT_BY_OTHERS.miss(quantile(during, 0.5) / quantile(before, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::case::CASES;

    /// A case of ten seconds with a fault from 3 s to 6 s; `answer` gives the status of a request that is due at this
    /// second.
    fn misses(id: &str, answer: impl Fn(Kind, f64) -> u16) -> Vec<String> {
        let case = CASES.iter().find(|case| case.id == id).unwrap();
        let start = Instant::now();
        let at = |second: f64| start + Duration::from_secs_f64(second);
        let sample = |kind, second| Sample {
            kind,
            due: at(second),
            took: Duration::from_millis(5),
            outcome: Outcome::Answered {
                status: answer(kind, second),
                retry_after: true,
                sets_cookie: false,
            },
        };
        let kinds = [Kind::Anonymous, Kind::Session, Kind::Read, Kind::Write];
        let samples = (0..100).flat_map(|n| kinds.map(|kind| sample(kind, f64::from(n) / 10.0))).collect();
        let gauges = Gauges { memory: 0.0, descriptors: 0.0, spans_dropped: 0.0, lines_dropped: 0.0 };
        let (begin, end, stop) = (at(3.0), at(6.0), at(10.0));
        let (before, during, after, probes, calls) = (gauges, None, gauges, Vec::new(), (0, 0));
        let seen = Seen {
            rate: 40.0,
            start,
            begin,
            end,
            stop,
            samples,
            probes,
            before,
            during,
            after,
            calls,
            lag: Duration::ZERO,
        };
        row(case, &seen).misses
    }

    fn needs_postgres(kind: Kind) -> bool {
        matches!(kind, Kind::Read | Kind::Write)
    }

    #[test]
    fn what_a_fault_may_refuse_is_no_miss_and_anything_else_is() {
        let during = |second: f64| (3.0..6.0).contains(&second);
        let honest = |kind, second| if during(second) && needs_postgres(kind) { 503 } else { 200 };
        assert_eq!(misses("pg_refused", honest), Vec::<String>::new());
        let all = |_, second| if during(second) { 503 } else { 200 };
        assert!(misses("pg_refused", all).iter().any(|miss| miss.contains("Session requests should not")));
        let none = |_, _| 200;
        assert!(misses("pg_refused", none).iter().any(|miss| miss.contains("the fault is none")));
        let rude = |kind, second| if during(second) && needs_postgres(kind) { 500 } else { 200 };
        assert!(misses("pg_refused", rude).iter().any(|miss| miss.contains("not as it must be")));
    }

    #[test]
    fn a_recovery_that_comes_late_or_never_is_a_miss() {
        let until =
            |end: f64| {
                misses("pg_refused", move |kind, second| {
                    if (3.0..end).contains(&second) && needs_postgres(kind) { 503 } else { 200 }
                })
            };
        assert_eq!(until(8.0), Vec::<String>::new(), "within 2 s");
        assert!(until(8.5).iter().any(|miss| miss.contains("recovery of Postgres: 2.4")));
        assert!(until(10.0).iter().any(|miss| miss.contains("recovery of Postgres: NaN")));
    }
}
