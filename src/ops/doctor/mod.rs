//! `server doctor`: tries all that the service leans on, from where it stands and with its own settings, and says what
//! to do about each fault.
mod cure;
mod postgres;
mod redis;

use crate::{
    backing::outbound::Outbound,
    config::{Config, Secret},
};
use anyhow::{Context, anyhow};
use futures_util::future::join_all;
use std::{
    fmt::{Display, Write},
    mem,
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::lookup_host, time::timeout};
use url::Url;

/// Longest time for one dependency, all its tests together.
const LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for a name's address, and for an upstream's answer.
const WAIT: Duration = Duration::from_millis(1500);
/// Clocks further apart than this were not set by a time server.
const APART: Duration = Duration::from_secs(1);

/// Tries everything at once, in 4 s at most. Returns a line for each test, and whether none has failed.
///
/// # Errors
/// When no HTTP client can be made, for example without a certificate store.
pub async fn examine(config: &Config) -> anyhow::Result<(String, bool)> {
    let mut upstreams = Vec::new();
    for (setting, address) in config.upstreams() {
        // Reads certificates, while nobody's time runs.
        let client = Outbound::new(address, WAIT)?;
        upstreams.push(Report::on(setting, async move |report| upstream(report, address, &client).await));
    }
    let (postgres, redis, upstreams) = tokio::join!(
        Report::on("DATABASE_URL", async |report| postgres::examine(report, config).await),
        Report::on("REDIS_URL", async |report| redis::examine(report, config).await),
        join_all(upstreams),
    );
    let reports = || [&postgres, &redis].into_iter().chain(&upstreams);
    Ok((reports().map(|report| report.lines.as_str()).collect(), reports().all(|report| report.is_good)))
}

/// Any answer shows that the way there is open.
async fn upstream(report: &mut Report, address: &Secret, client: &Outbound) -> anyhow::Result<()> {
    report.resolve(address).await?;
    let status = client.probe().await?;
    if status.is_server_error() {
        report.warning(format_args!("answers with {status}"), "it is there, but not well: see its log");
    } else {
        report.good(format_args!("answers, with {status}"));
    }
    Ok(())
}

/// What is said of one dependency, whose address is in `setting`.
struct Report {
    setting: &'static str,
    lines: String,
    is_good: bool,
    since: Instant,
}

impl Report {
    /// Runs these tests; the first error ends them.
    async fn on(setting: &'static str, tests: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>) -> Self {
        let mut report = Self { setting, lines: String::new(), is_good: true, since: Instant::now() };
        let outcome = timeout(LIMIT, tests(&mut report)).await.context("not done in time").flatten();
        if let Err(error) = outcome {
            report.fault(error.root_cause(), cure::of(&error));
        }
        report
    }

    fn good(&mut self, text: impl Display) {
        self.line("ok", text, "");
    }

    fn warning(&mut self, text: impl Display, cure: &str) {
        self.line("warn", text, cure);
    }

    fn fault(&mut self, text: impl Display, cure: &str) {
        self.is_good = false;
        self.line("FAIL", text, cure);
    }

    fn line(&mut self, grade: &str, text: impl Display, cure: &str) {
        let took = mem::replace(&mut self.since, Instant::now()).elapsed().as_millis();
        let cure = if cure.is_empty() { String::new() } else { format!("               {cure}\n") };
        write!(self.lines, "{grade:<4} {took:>5} ms  {}: {text}\n{cure}", self.setting)
            .expect("a String takes all");
    }

    /// Looks up the host of `address`.
    async fn resolve(&mut self, address: &Secret) -> anyhow::Result<()> {
        let url = Url::parse(address.expose())?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        // A socket's path.
        if host.contains('%') {
            return Ok(());
        }
        let found = timeout(WAIT, lookup_host((host, 0))).await.context("no answer in time");
        let first = found.and_then(|found| found?.next().context("it has no address"));
        let first = first.map_err(|error| anyhow!("{host} {}: {error}", cure::UNKNOWN))?;
        self.good(format_args!("{host} is {}", first.ip()));
        Ok(())
    }

    fn version(&mut self, version: &str, oldest: u32) {
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
        if major.unwrap_or(oldest) < oldest {
            self.fault(format_args!("version {version}"), &format!("it takes {oldest} or newer"));
        } else {
            self.good(format_args!("version {version}"));
        }
    }

    /// Compares the dependency's clock with this machine's.
    fn clock(&mut self, theirs: SystemTime) {
        let apart = SystemTime::now().duration_since(theirs).unwrap_or_else(|ahead| ahead.duration());
        let text = format!("its clock and this machine's are {} ms apart", apart.as_millis());
        if apart > APART {
            self.warning(
                text,
                "let both follow a time server: sessions end and retries count by these clocks",
            );
        } else {
            self.good(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clocks_that_are_apart_and_old_versions_are_noticed() {
        let report = Report::on("REDIS_URL", async |report| {
            let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
            [now, now + hour, now - hour].into_iter().for_each(|theirs| report.clock(theirs));
            ["13.9 (Debian)", "14beta1", "15.20"].into_iter().for_each(|version| report.version(version, 14));
            Ok(())
        });
        let report = report.await;
        let grades: Vec<_> = report.lines.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(
            grades,
            ["ok", "warn", "let", "warn", "let", "FAIL", "it", "ok", "ok"],
            "{}",
            report.lines
        );
        assert!(!report.is_good);
    }
}
