//! Every metric: its name, help, unit and buckets, and the functions that the other rooms count with.
//!
//! A call builds no text: it hashes its labels and adds to what it finds. Labels come from fixed sets (route
//! templates, known methods, words in the code), never from a caller, so the series stay bounded.
use super::{series::Series, traces::method_label};
use axum::http::{Method, StatusCode};
use prometheus::{
    Encoder, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder,
};
use std::{sync::LazyLock, time::Duration};

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Seconds; what the semantic conventions advise for HTTP.
const HTTP: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds; a query or a command takes a tenth of a request.
const BACKING: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

struct Metrics {
    series: Series,
    server_duration: HistogramVec,
    server_active: IntGauge,
    server_connections: IntGauge,
    server_rejected: IntCounterVec,
    client_duration: HistogramVec,
    db_connections: IntGaugeVec,
    db_wait: Histogram,
    db_duration: HistogramVec,
    redis_duration: HistogramVec,
    dependency_up: IntGaugeVec,
    lag_p99: Gauge,
    lag_max: Gauge,
    tasks: IntGauge,
    stalls: IntCounter,
    panics: IntCounter,
    log_lines_dropped: IntCounter,
    spans_dropped: IntCounter,
    build_info: IntGaugeVec,
}

impl Metrics {
    fn new() -> Self {
        let s = Series::of_process();
        let server = &["http_request_method", "http_route", "http_response_status_code"];
        let client = &["http_request_method", "server_address", "http_response_status_code", "error_type"];
        let operation = &["db_operation_name"];
        let server_help = "Seconds from a request's head to its answer, by route template.";
        let client_help = "Seconds that an outbound request took; error_type says why one got no answer.";
        let db_help = "Seconds that a Postgres query took, without the wait for a connection.";
        let redis_help = "Seconds that a Redis command took.";
        let p99_help = "Seconds that due tasks waited in the last 5 s, 99th percentile.";
        let max_help = "Seconds that due tasks waited in the last 5 s, the longest.";
        let stalls_help = "Times a handler blocked its worker for 100 ms or more.";
        let lines_help = "Log lines lost to a full or broken stdout.";
        let db_wait_help = "Seconds that a query waited for a Postgres connection.";
        let rejected_help = "Requests refused before a handler saw them.";
        let reasons = ["bodies", "overloaded", "rate_limited"];
        Self {
            server_duration: s.histograms("http_server_request_duration_seconds", server_help, server, HTTP),
            server_active: s.gauge("http_server_active_requests", "Requests being served."),
            server_connections: s.gauge("http_server_connections", "Open connections."),
            server_rejected: s.counters("http_server_rejected_total", rejected_help, "reason", &reasons),
            client_duration: s.histograms("http_client_request_duration_seconds", client_help, client, HTTP),
            db_connections: s.gauges("db_client_connections", "Postgres connections.", &["state"]),
            db_wait: s.histogram("db_client_connection_wait_seconds", db_wait_help, BACKING),
            db_duration: s.histograms("db_client_operation_duration_seconds", db_help, operation, BACKING),
            redis_duration: s.histograms(
                "redis_client_operation_duration_seconds",
                redis_help,
                operation,
                BACKING,
            ),
            dependency_up: s.gauges("dependency_up", "1 while it answers, else 0.", &["dependency"]),
            lag_p99: s.seconds("runtime_lag_p99_seconds", p99_help),
            lag_max: s.seconds("runtime_lag_max_seconds", max_help),
            tasks: s.gauge("runtime_alive_tasks", "Tasks that have begun and not ended."),
            stalls: s.counter("runtime_stalls_total", stalls_help),
            panics: s.counter("panics_total", "Panics, survived ones included."),
            log_lines_dropped: s.counter("log_lines_dropped_total", lines_help),
            spans_dropped: s.counter("spans_dropped_total", "Spans lost to a full queue or a failed export."),
            build_info: s.gauges("build_info", "1; see its labels.", &["version", "revision"]),
            series: s,
        }
    }
}

/// Everything in the Prometheus text format.
pub fn render() -> Vec<u8> {
    let mut text = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&METRICS.series.gather(), &mut text).expect("writing to memory cannot fail");
    text
}

/// A request got its answer. `route` is the template, `None` where none matched.
pub fn request_finished(method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
    let labels = [method_label(method), route.unwrap_or("<unmatched>"), status.as_str()];
    METRICS.server_duration.with_label_values(&labels).observe(took.as_secs_f64());
}

/// Counts in a gauge for as long as it lives.
#[must_use = "it counts until it is dropped"]
pub struct Counted(&'static IntGauge);

impl Counted {
    fn new(gauge: &'static IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that is being served.
pub fn active_request() -> Counted {
    Counted::new(&METRICS.server_active)
}

/// A connection that is open.
pub fn connection() -> Counted {
    Counted::new(&METRICS.server_connections)
}

/// A request or connection was refused; `reason` is a short fixed word such as `overloaded`.
pub fn rejected(reason: &'static str) {
    METRICS.server_rejected.with_label_values(&[reason]).inc();
}

/// An outbound request ended: with a status, or with a short fixed word such as `timeout`. `server` is a host from
/// the settings.
pub fn outbound(method: &Method, server: &str, outcome: Result<StatusCode, &'static str>, took: Duration) {
    let (status, error) = outcome.as_ref().map_or_else(|error| ("", *error), |status| (status.as_str(), ""));
    let labels = [method_label(method), server, status, error];
    METRICS.client_duration.with_label_values(&labels).observe(took.as_secs_f64());
}

/// A query ended, however it did; `operation` is a fixed name such as `accounts.get`.
pub fn db_operation(operation: &'static str, took: Duration) {
    METRICS.db_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
}

/// A query got, or gave up waiting for, a connection.
pub fn db_wait(took: Duration) {
    METRICS.db_wait.observe(took.as_secs_f64());
}

/// How many connections there are now.
pub fn db_connections(used: usize, idle: usize) {
    for (state, count) in [("used", used), ("idle", idle)] {
        METRICS.db_connections.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// A command ended, however it did; `operation` is a fixed name such as `GET`.
pub fn redis_operation(operation: &'static str, took: Duration) {
    METRICS.redis_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
}

/// Whether a dependency (`postgres`, `redis` or `preview`) answers.
pub fn dependency_up(dependency: &'static str, up: bool) {
    METRICS.dependency_up.with_label_values(&[dependency]).set(i64::from(up));
}

/// How late the runtime ran due tasks in the last window, and how many tasks it has.
pub fn runtime(lag_p99: Duration, lag_max: Duration, tasks: usize) {
    METRICS.lag_p99.set(lag_p99.as_secs_f64());
    METRICS.lag_max.set(lag_max.as_secs_f64());
    METRICS.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
}

/// A handler blocks its worker.
pub fn runtime_stall() {
    METRICS.stalls.inc();
}

/// What is running; called once at the start.
pub fn build_info(version: &str, revision: &str) {
    METRICS.build_info.with_label_values(&[version, revision]).set(1);
}

pub(super) fn panics() {
    METRICS.panics.inc();
}

pub(super) fn log_lines_dropped(lines: u64) {
    METRICS.log_lines_dropped.inc_by(lines);
}

pub(super) fn spans_dropped(spans: u64) {
    METRICS.spans_dropped.inc_by(spans);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn log_lines_dropped_so_far() -> u64 {
        METRICS.log_lines_dropped.get()
    }

    pub fn spans_dropped_so_far() -> u64 {
        METRICS.spans_dropped.get()
    }

    fn rendered() -> String {
        String::from_utf8(render()).unwrap()
    }

    fn touch_everything() {
        let took = Duration::from_millis(3);
        request_finished(&Method::GET, Some("/v1/sessions/{id}"), StatusCode::OK, took);
        rejected("overloaded");
        outbound(&Method::GET, "preview", Ok(StatusCode::OK), took);
        outbound(&Method::GET, "preview", Err("timeout"), took);
        db_operation("accounts.get", took);
        db_wait(took);
        db_connections(1, 2);
        redis_operation("GET", took);
        dependency_up("redis", true);
        build_info("1.2.3", "abc");
    }

    #[test]
    fn every_promised_metric_is_there_with_a_help_text() {
        touch_everything();
        let (text, page) = (rendered(), include_str!("../../docs/operations.md"));
        for name in
            "http_server_request_duration_seconds http_server_active_requests http_server_connections \
            http_server_rejected_total http_client_request_duration_seconds db_client_connections \
            db_client_connection_wait_seconds db_client_operation_duration_seconds dependency_up \
            redis_client_operation_duration_seconds runtime_lag_p99_seconds runtime_lag_max_seconds \
            runtime_alive_tasks runtime_stalls_total panics_total log_lines_dropped_total spans_dropped_total \
            build_info process_cpu_seconds_total process_resident_memory_bytes process_open_fds \
            process_start_time_seconds"
                .split_whitespace()
        {
            assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not list {name}");
            let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} ")));
            assert!(help.is_some_and(|help| help.ends_with('.')), "{name}: {help:?}");
        }
        let series = "http_server_request_duration_seconds_count{http_request_method=\"GET\",\
            http_response_status_code=\"200\",http_route=\"/v1/sessions/{id}\"} ";
        assert!(text.contains(series), "{text}");
        assert!(text.contains("dependency_up{dependency=\"redis\"} 1"), "{text}");
    }

    #[test]
    fn a_gauge_counts_what_lives() {
        // One of its own: other tests of this process open connections.
        let gauge: &IntGauge = Box::leak(Box::new(IntGauge::new("open", "Open.").unwrap()));
        let open = Counted::new(gauge);
        assert_eq!(gauge.get(), 1);
        drop(open);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn invented_methods_and_unknown_paths_share_one_series() {
        // Other tests of this process ask for unknown paths too, but with methods that exist.
        let ours = |line: &&str| line.contains("<unmatched>") && line.contains("_OTHER");
        let series = || rendered().lines().filter(ours).count();
        for n in 0..1000 {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            request_finished(&method, None, StatusCode::NOT_FOUND, Duration::ZERO);
        }
        assert_eq!(series(), HTTP.len() + 3, "its buckets, +Inf, sum and count");
    }
}
