//! A registry of metrics whose names are given in one place, so that a bad or doubled name cannot get past a test.
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result, core::Collector, process_collector::ProcessCollector, proto::MetricFamily,
};

pub struct Series(Registry);

impl Series {
    /// With what the system knows of this process in it already: `process_*`.
    pub fn of_process() -> Self {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self())).expect("the registry is empty");
        Self(registry)
    }

    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    /// A counter for each of the values, from zero: of a series that begins with 1, Prometheus sees no increase.
    pub fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label]));
        values.iter().for_each(|value| counters.with_label_values(&[value]).reset());
        counters
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    /// A gauge of a time, in seconds.
    pub fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: Result<M>) -> M {
        let metric = metric.expect("every name and label is a valid one");
        self.0.register(Box::new(metric.clone())).expect("every name is given once");
        metric
    }
}
