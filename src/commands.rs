//! The command line, and the signals.
use app::{
    api,
    backing::migrate,
    config::Config,
    ops,
    runtime::level::LogLevel,
    server::signals::Signals,
    telemetry::{self, logs},
};
use std::{process::ExitCode, time::Duration};
use tokio::runtime::Builder;

const HELP: &str = "\
Usage: server [COMMAND]

  serve          serve HTTP (the default)
  migrate        bring the database's schema up to date
  check-config   print the settings in force, secrets masked
  doctor         try all that the service leans on, and say what to do about each fault
  healthcheck    ask the operations port of a running server
  openapi        print the OpenAPI document
  --version      print the version

Settings come from the environment; the README lists them.
Exit codes: 0 done, 1 failed or cut short, 78 invalid settings.
";

/// `EX_CONFIG` of sysexits.h.
const INVALID_SETTINGS: u8 = 78;

/// For a collector that may be gone.
const LAST_SPANS: Duration = Duration::from_millis(1500);
/// For a reader of the log that may be slow.
const LAST_LINES: Duration = Duration::from_millis(500);

pub fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] | ["serve"] => with_settings(serve),
        ["migrate"] => with_settings(migrate),
        ["check-config"] => with_settings(|config| print(&config.to_lines())),
        ["doctor"] => with_settings(doctor),
        ["healthcheck"] => {
            with_settings(|config| ops::healthcheck(config.ops_addr()).map(|()| ExitCode::SUCCESS))
        }
        ["openapi"] => {
            report(api::document().to_pretty_json().map_err(Into::into).and_then(|json| print(&json)))
        }
        ["-h" | "--help" | "help"] => report(print(HELP)),
        ["-V" | "--version"] => report(print(concat!(env!("CARGO_PKG_VERSION"), "\n"))),
        _ => {
            eprint!("server: unknown arguments {arguments:?}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that needs settings; bad ones are named on stderr, all at once.
fn with_settings(command: impl FnOnce(&Config) -> anyhow::Result<ExitCode>) -> ExitCode {
    match Config::from_env() {
        Ok(config) => report(command(&config)),
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("server: {error}"));
            ExitCode::from(INVALID_SETTINGS)
        }
    }
}

fn report(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("server: {error:#}");
        ExitCode::FAILURE
    })
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Exit code 0 after a clean stop, 1 when something was cut or went wrong.
fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&config.telemetry)?;
    telemetry::panics::install();
    // For the operations port, the stop and all that is no request; requests have the workers.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let level = LogLevel::new(telemetry.filter.clone(), &config.telemetry.log_level);
    let outcome = runtime.block_on(crate::live(config, level));
    // Work on blocking threads must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = &outcome {
        tracing::error!(fatal = true, err = logs::err_json(error), "stopped by a fault");
    }
    telemetry.export_spans(LAST_SPANS);
    let clean = outcome.is_ok_and(|clean| clean);
    tracing::info!(clean, "stopped");
    telemetry::flush_lines(LAST_LINES);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&config.telemetry)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        // Whatever it waits for then can be waited for again.
        let level = LogLevel::new(telemetry.filter.clone(), &config.telemetry.log_level);
        let mut signals = Signals::install(Duration::from_secs(2), level)?;
        tokio::select! {
            outcome = migrate::migrate(&config.database_url, Duration::from_secs(60)) => outcome,
            signal = signals.first() => anyhow::bail!("stopped by {signal}"),
        }
    });
    if let Err(error) = &outcome {
        tracing::error!(fatal = true, err = logs::err_json(error), "migration failed");
    }
    telemetry.export_spans(LAST_SPANS);
    telemetry::flush_lines(LAST_LINES);
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn doctor(config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (lines, is_good) = runtime.block_on(ops::doctor::examine(config))?;
    // A name that is still looked up must not hold the exit.
    runtime.shutdown_background();
    print(&lines)?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
