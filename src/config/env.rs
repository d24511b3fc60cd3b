//! Reads and checks single variables, and collects every error instead of stopping at the first.
use super::{Config, LogFormat, MASK, PACKAGE, Rate, Secret, Shutdown, Telemetry};
use std::time::Duration;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use url::Url;

/// Answers like the environment does: nothing, a value, or why the value cannot be read.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, &'static str> + 'a;

/// Reads one variable after the other and keeps what is wrong with each.
pub struct Reader<'a> {
    lookup: &'a Lookup<'a>,
    pub effective: Vec<(&'static str, String)>,
    pub errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(lookup: &'a Lookup<'a>) -> Self {
        Self { lookup, effective: Vec::new(), errors: Vec::new() }
    }

    /// The variable as given; an empty one counts as unset.
    fn given(&mut self, name: &'static str) -> Option<String> {
        match (self.lookup)(name) {
            Ok(value) => value.filter(|v| !v.is_empty()),
            Err(why) => {
                self.errors.push(format!("{name} {why}"));
                None
            }
        }
    }

    pub fn text(&mut self, name: &'static str, default: &str) -> String {
        let value = self.given(name).unwrap_or_else(|| default.to_owned());
        self.effective.push((name, value.clone()));
        value
    }

    /// Parses the variable; a bad value is reported and the default takes its place until all are read.
    fn with<T>(
        &mut self,
        name: &'static str,
        default: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let value = self.text(name, default);
        parse(&value).unwrap_or_else(|| {
            self.errors.push(format!("{name}={value:?} must be {expected}, for example {default}"));
            parse(default).expect("every default parses")
        })
    }

    pub fn parsed<T: std::str::FromStr>(&mut self, name: &'static str, default: &str, expected: &str) -> T {
        self.with(name, default, expected, |v| v.parse().ok())
    }

    pub fn at_least_one(&mut self, name: &'static str, default: &str) -> usize {
        self.with(name, default, "a whole number of at least 1", |v| v.parse().ok().filter(|n| *n > 0))
    }

    pub fn duration(&mut self, name: &'static str, default: &str) -> Duration {
        self.with(name, default, "a duration", parse_duration)
    }

    pub fn positive(&mut self, name: &'static str, default: &str) -> Duration {
        self.with(name, default, "a duration above zero", |v| parse_duration(v).filter(|d| !d.is_zero()))
    }

    pub fn rate(&mut self, name: &'static str, default: &str) -> Rate {
        self.with(name, default, "a count per duration", parse_rate)
    }

    pub fn worker_threads(&mut self, name: &'static str) -> usize {
        // Two at least, so that one blocking call cannot stop the probes.
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        self.at_least_one(name, &cores.to_string())
    }

    /// A required URL that holds a password, given as it is or in a file.
    pub fn secret_url(&mut self, name: &'static str, file_name: &'static str, schemes: &[&str]) -> Secret {
        let secret = match (self.given(name), self.given(file_name)) {
            (Some(value), None) => Secret::from(value),
            (None, Some(path)) => {
                self.effective.push((file_name, path.clone()));
                match Secret::read(path.clone().into()) {
                    Ok(secret) => secret,
                    Err(error) => {
                        return self.refuse(format!("{file_name}={path:?} cannot be read: {error}"));
                    }
                }
            }
            (Some(_), Some(_)) => {
                return self.refuse(format!("{name} and {file_name} are both set: keep one"));
            }
            (None, None) => {
                let example = schemes[0];
                return self.refuse(format!(
                    "{name} is required, for example {example}://host/ (or {file_name}: a file with it)"
                ));
            }
        };
        let url = Url::parse(secret.expose()).ok();
        match url.filter(|url| schemes.contains(&url.scheme()) && url.has_host()) {
            Some(url) => {
                self.effective.push((name, masked(&url)));
                secret
            }
            None => self.refuse(format!("{name} must be a {}:// URL (its value is not shown)", schemes[0])),
        }
    }

    fn refuse(&mut self, error: String) -> Secret {
        self.errors.push(error);
        Secret::from(String::new())
    }

    /// The URL as given; it may hold a password.
    pub fn optional_url(&mut self, name: &'static str) -> Option<Secret> {
        let Some(value) = self.given(name) else {
            self.effective.push((name, String::new()));
            return None;
        };
        match Url::parse(&value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        {
            Some(url) => self.effective.push((name, masked(&url))),
            None => self
                .errors
                .push(format!("{name} must be an http:// or https:// URL (its value is not shown)")),
        }
        Some(Secret::from(value))
    }

    pub fn telemetry(&mut self) -> Telemetry {
        let region = self.given("AWS_REGION").unwrap_or_else(|| "local".to_owned());
        let region = self.text("REGION", &region);
        let log_level =
            self.with("LOG_LEVEL", "info", "a log filter", |v| is_log_filter(v).then(|| v.to_owned()));
        let log_format = self.with("LOG_FORMAT", "json", "json or pretty", |v| match v {
            "json" => Some(LogFormat::Json),
            "pretty" => Some(LogFormat::Pretty),
            _ => None,
        });
        let service = self.text("OTEL_SERVICE_NAME", PACKAGE);
        let disabled = self.with("OTEL_SDK_DISABLED", "false", "true or false", |v| {
            v.to_ascii_lowercase().parse::<bool>().ok()
        });
        let exporter = self.with("OTEL_TRACES_EXPORTER", "otlp", "otlp or none", |v| {
            matches!(v, "otlp" | "none").then(|| v.to_owned())
        });
        let base = self.optional_url("OTEL_EXPORTER_OTLP_ENDPOINT");
        let base = base.map(|base| format!("{}/v1/traces", base.expose().trim_end_matches('/')).into());
        let endpoint = self.optional_url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(base);
        for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
            self.with(name, "http/protobuf", "the one protocol that is spoken", |v| {
                (v == "http/protobuf").then_some(())
            });
        }
        let span_queue = self.at_least_one("OTEL_BSP_MAX_QUEUE_SIZE", "2048");
        let collector = endpoint.filter(|_| !disabled && exporter == "otlp");
        Telemetry { service, region, log_level, log_format, collector, span_queue }
    }

    pub fn cross_check(&mut self, config: &Config) {
        let Shutdown { budget, lame_duck, drain } = config.shutdown;
        let rules = [
            (lame_duck <= drain, "SHUTDOWN_LAME_DUCK must not be longer than SHUTDOWN_DRAIN"),
            (drain <= budget, "SHUTDOWN_DRAIN must not be longer than SHUTDOWN_BUDGET"),
            (config.session_idle <= config.session_max, "SESSION_IDLE must not be longer than SESSION_MAX"),
            (config.port == 0 || config.port != config.ops_port, "PORT and OPS_PORT must differ"),
        ];
        self.errors.extend(rules.iter().filter(|(holds, _)| !holds).map(|(_, error)| (*error).to_owned()));
    }
}

/// `250ms`, `25s`, `5m` or `12h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // A year is far above any sensible setting and far below what a timer can hold.
    let millis = number.parse::<u64>().ok()?.checked_mul(millis_per_unit)?;
    (millis <= 365 * 24 * 3_600_000).then(|| Duration::from_millis(millis))
}

/// A lone word must be a level: a filter would take a misspelt one for the name of a module.
pub fn is_log_filter(text: &str) -> bool {
    let mut words = text.split(',').map(str::trim);
    let known = |word: &str| word.contains(['=', '[']) || word.parse::<LevelFilter>().is_ok();
    words.all(known) && text.parse::<EnvFilter>().is_ok()
}

/// `600/1m`: a count above zero per duration above zero.
fn parse_rate(text: &str) -> Option<Rate> {
    let (count, window) = text.split_once('/')?;
    let rate = Rate { count: count.parse().ok()?, window: parse_duration(window)? };
    (rate.count > 0 && !rate.window.is_zero()).then_some(rate)
}

/// The URL with its password masked, also one given as a query parameter.
fn masked(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Cannot fail: a URL that holds a password has a host.
        let _ = shown.set_password(Some("MASK"));
    }
    if url.query().is_some() {
        let pairs =
            url.query_pairs().map(|(k, v)| (k.clone(), if k.contains("pass") { "MASK".into() } else { v }));
        let pairs: Vec<_> = pairs.collect();
        shown.query_pairs_mut().clear().extend_pairs(pairs);
    }
    shown.as_str().replace("MASK", MASK)
}
