//! Every setting: its name, unit and default, read from the environment in one place and checked in one go. {%- capture file %}{% raw %}
mod env;
#[cfg(test)]
mod tests;

pub use env::{is_log_filter, parse_duration};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// The package's name, so a generated service reports its own.
pub const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// The settings in force. Built by [`Config::from_env`] only, so a `Config` is a valid one.
#[derive(Clone, Debug)]
pub struct Config {
    pub host: IpAddr,
    pub port: u16,
    pub ops_port: u16,
    pub database_url: Secret,
    pub database_max_connections: usize,
    pub redis_url: Secret,
    pub redis_prefix: String,
    pub preview_url: Option<Secret>, // example
    pub preview_timeout: Duration,   // example
    pub request_timeout: Duration,
    pub shutdown: Shutdown,
    pub session_idle: Duration,
    pub session_max: Duration,
    pub max_connections: usize,
    pub max_in_flight: usize,
    pub queue_wait: Duration,
    pub rate_limit: Rate,
    pub login_rate_limit: Rate,
    pub trusted_proxies: usize,
    pub worker_threads: usize,
    pub telemetry: Telemetry,
    /// Every variable with its value in force, as it would be given, secrets masked.
    pub effective: Vec<(&'static str, String)>,
}

/// The stop's timeline; every figure counts from the signal.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// The process is gone by then, whatever happens.
    pub budget: Duration,
    /// Until then requests are still accepted, while load balancers notice.
    pub lame_duck: Duration,
    /// What runs at this point is cut.
    pub drain: Duration,
}

/// What the telemetry room needs to know.
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub service: String,
    pub region: String,
    pub log_level: String,
    pub log_format: LogFormat,
    /// Where spans are sent: `None` without an OTLP endpoint, or when something switches tracing off.
    pub collector: Option<Secret>,
    /// Spans that may wait for the collector.
    pub span_queue: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// `count` requests per `window`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub count: u32,
    pub window: Duration,
}

/// A value that never reaches a log: its `Debug` form is a mask.
#[derive(Clone, PartialEq)]
pub struct Secret {
    value: String,
    file: Option<PathBuf>,
}

impl Secret {
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// What its file holds now, if that is something else; `None` as well when it came from no file. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn renewed(&self) -> io::Result<Option<Self>> {
        let Some(file) = &self.file else { return Ok(None) };
        Self::read(file.clone()).map(|now| (now != *self).then_some(now))
    }

    fn read(file: PathBuf) -> io::Result<Self> {
        // People end it with a new line.
        let value = std::fs::read_to_string(&file)?.trim().to_owned();
        Ok(Self { value, file: Some(file) })
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self { value, file: None }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

const MASK: &str = "[REDACTED]";

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// One line for each bad variable, all of them at once; no line holds a secret.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn from_env() -> Result<Self, Vec<String>> {
        Self::from_lookup(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err("is not valid UTF-8"),
        })
    }

    /// Reads the settings from `lookup`, which answers like the environment does.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Result<Option<String>, &'static str>,
    ) -> Result<Self, Vec<String>> {
        let mut env = env::Reader::new(&lookup);
        let config = Self {
            host: env.parsed("HOST", "0.0.0.0", "an IP address"),
            port: env.parsed("PORT", "8080", "a port number"),
            ops_port: env.parsed("OPS_PORT", "9090", "a port number"),
            database_url: env.secret_url("DATABASE_URL", "DATABASE_URL_FILE", &["postgres", "postgresql"]),
            database_max_connections: env.at_least_one("DATABASE_MAX_CONNECTIONS", "10"),
            redis_url: env.secret_url("REDIS_URL", "REDIS_URL_FILE", &["redis", "rediss"]),
            redis_prefix: env.text("REDIS_PREFIX", concat!(env!("CARGO_PKG_NAME"), ":")),
            preview_url: env.optional_url("PREVIEW_URL"), // example
            preview_timeout: env.positive("PREVIEW_TIMEOUT", "1s"), // example
            request_timeout: env.positive("REQUEST_TIMEOUT", "10s"),
            shutdown: Shutdown {
                budget: env.positive("SHUTDOWN_BUDGET", "25s"),
                lame_duck: env.duration("SHUTDOWN_LAME_DUCK", "5s"),
                drain: env.duration("SHUTDOWN_DRAIN", "20s"),
            },
            session_idle: env.positive("SESSION_IDLE", "30m"),
            session_max: env.positive("SESSION_MAX", "12h"),
            max_connections: env.at_least_one("MAX_CONNECTIONS", "10000"),
            max_in_flight: env.at_least_one("MAX_IN_FLIGHT", "256"),
            queue_wait: env.duration("QUEUE_WAIT", "100ms"),
            rate_limit: env.rate("RATE_LIMIT", "600/1m"),
            login_rate_limit: env.rate("LOGIN_RATE_LIMIT", "10/1m"),
            trusted_proxies: env.parsed("TRUSTED_PROXIES", "0", "a whole number"),
            worker_threads: env.worker_threads("WORKER_THREADS"),
            telemetry: env.telemetry(),
            effective: Vec::new(),
        };
        env.cross_check(&config);
        if env.errors.is_empty() { Ok(Self { effective: env.effective, ..config }) } else { Err(env.errors) }
    }

    /// Where the public listener binds.
    pub fn public_addr(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where the operations listener binds.
    pub fn ops_addr(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.ops_port)
    }

    /// The HTTP services that are called: the setting that has the address, and the address.
    pub fn upstreams(&self) -> Vec<(&'static str, &Secret)> {
        let known = [("OTEL_EXPORTER_OTLP_ENDPOINT", &self.telemetry.collector)].into_iter();
        let known = known.chain([("PREVIEW_URL", &self.preview_url)]); // example
        known.filter_map(|(setting, address)| Some((setting, address.as_ref()?))).collect()
    }

    /// The settings in force as a JSON object, secrets masked.
    pub fn to_json(&self) -> String {
        let settings = self.effective.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
        serde_json::Value::Object(settings.collect()).to_string()
    }

    /// The settings in force as `NAME=value` lines, secrets masked.
    pub fn to_lines(&self) -> String {
        self.effective.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
