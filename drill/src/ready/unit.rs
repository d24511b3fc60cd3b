//! What a systemd unit says of starts, read from the unit itself.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::process::Exit;

/// When and how a supervisor starts the service.
pub struct Unit {
    /// `Restart=`
    pub restart: String,
    /// `RestartSec=`
    pub pause: Duration,
    /// Exit codes after which it stays down.
    prevent: Vec<i32>,
    /// So many starts in so long a time, and no more.
    burst: usize,
    interval: Duration,
    /// The arguments of `ExecStartPre=` and of `ExecStart=`.
    pub before: Vec<String>,
    pub start: Vec<String>,
}

impl Unit {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let last = |name: &str| {
            let settings = text.lines().filter_map(|line| line.trim().split_once('='));
            settings.rev().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        let time = |name: &str, default| last(name).map_or(Ok(default), time_span);
        let arguments = |name: &str| {
            let words = last(name).unwrap_or_default().split_whitespace().skip(1);
            words.map(str::to_owned).collect()
        };
        let codes = last("RestartPreventExitStatus").unwrap_or_default().split_whitespace();
        // What is not set is as systemd has it.
        Ok(Self {
            restart: last("Restart").unwrap_or("no").to_owned(),
            pause: time("RestartSec", Duration::from_millis(100))?,
            prevent: codes.filter_map(|code| code.parse().ok()).collect(),
            burst: last("StartLimitBurst").map_or(Ok(5), str::parse).context("StartLimitBurst")?,
            interval: time("StartLimitIntervalSec", Duration::from_secs(10))?,
            before: arguments("ExecStartPre"),
            start: arguments("ExecStart"),
        })
    }

    /// Whether the unit wants another start after this end, having had those `starts`.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn again(&self, exit: &Exit, starts: &[Instant]) -> Result<(), String> {
        let clean = exit.code == Some(0);
        let wanted = match &*self.restart {
            "always" => true,
            "on-failure" => !clean,
            "on-abnormal" | "on-abort" => exit.signal.is_some(),
            "on-success" => clean,
            _ => false,
        };
        if !wanted || exit.code.is_some_and(|code| self.prevent.contains(&code)) {
            let how = exit.code.map_or("a kill".to_owned(), |code| format!("exit code {code}"));
            return Err(format!("the unit does not restart it after {how}: Restart={}", self.restart));
        }
        let lately = starts.iter().filter(|start| start.elapsed() < self.interval).count();
        if self.burst > 0 && lately >= self.burst {
            return Err(format!("the unit gives up after {lately} starts in {:?}", self.interval));
        }
        Ok(())
    }
}

/// `100ms`, `5s`, `1min 30s`, or seconds without a unit.
fn time_span(text: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for word in text.split_whitespace() {
        let (number, unit) = word.split_at(word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len()));
        let number: f64 = number.parse().with_context(|| format!("{text:?} is no time"))?;
        let seconds = match unit {
            "ms" => 0.001,
            "" | "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => bail!("{text:?} is no time"),
        };
        sum += Duration::from_secs_f64(number * seconds);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "[Unit]\nStartLimitIntervalSec=1min 30s\nStartLimitBurst=3\n# Restart=no\n[Service]\n\
        ExecStartPre=/usr/local/bin/x migrate\nExecStart=/usr/local/bin/x serve\nRestart=always\nRestartSec=100ms\n\
        RestartPreventExitStatus=78\n";

    fn exit(code: Option<i32>) -> Exit {
        Exit { code, signal: code.is_none().then_some(9), took: Duration::ZERO }
    }

    fn again(text: &str, code: Option<i32>, starts: usize) -> Result<(), String> {
        Unit::parse(text).unwrap().again(&exit(code), &vec![Instant::now(); starts])
    }

    #[test]
    fn a_unit_restarts_as_it_says() {
        for code in [None, Some(0), Some(1)] {
            assert_eq!(again(UNIT, code, 2), Ok(()));
        }
        assert!(again(UNIT, Some(78), 1).is_err());
        assert!(again(UNIT, None, 3).unwrap_err().contains("gives up after 3 starts in 90s"));
        let other = |policy: &str, code| again(&UNIT.replace("Restart=always", policy), code, 1).is_ok();
        assert_eq!(["Restart=no", "", "Restart=on-success"].map(|policy| other(policy, None)), [false; 3]);
        assert!(other("Restart=on-failure", None) && other("Restart=on-failure", Some(1)));
        assert!(!other("Restart=on-failure", Some(0)) && !other("Restart=on-abnormal", Some(1)));
    }

    #[test]
    fn a_units_times_and_commands_are_read_as_systemd_reads_them() {
        let unit = Unit::parse(UNIT).unwrap();
        assert_eq!((unit.pause, unit.interval), (Duration::from_millis(100), Duration::from_secs(90)));
        assert_eq!((&*unit.before, &*unit.start), (&["migrate".to_owned()][..], &["serve".to_owned()][..]));
        assert_eq!(time_span("5").unwrap(), Duration::from_secs(5));
        assert!(time_span("5 parsecs").is_err() && Unit::parse("RestartSec=soon").is_err());
    }
}
