//! The drills' command line.

use std::{path::Path, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use drill::{
    chaos, load, mutants,
    ready::{self, Subject},
    restart,
    rollout::{self, Cluster},
    stop::{self, Extent, stage::Setup},
    train,
};
use tokio::net::TcpListener;

const USAGE: &str = "\
usage: drill COMMAND

  upstream [--port N]                         the stub preview upstream; without a port, any free one
  ready [--server PATH] [--only TITLE]        the twelve items of the readiness checklist
  ready --mutants [--server PATH] [--only NAME]   the same on copies of the project with one fault each
  stop-matrix [--server PATH] [--quick]       what a stop takes and loses
  restart [--server PATH] [--runs N]          kill -9 to ready
  rollout [--server PATH] [--runs N]          rolling restarts of three processes under load
  rollout --cluster NAME [--address HOST:PORT] [--runs N]   the same of a deployment in the current kubectl context
  chaos [--server PATH] [--only NAME]         faults under a steady load: what is refused, and how soon all is well
  load [--server PATH]                        up to ten times the capacity
  soak [--server PATH] [--runs MINUTES]       a fault each minute at 0.8 of the capacity: what the server keeps of them
  train [--server PATH]                       everyday traffic, for a server that counts what it does
  mutants chaos [--server PATH]               the same faults on servers that do not recover from them
  mutants rollout [--server PATH]             one rolling restart that does not wait for the balancer
  mutants stop-matrix [--server PATH]         the same load on servers whose stop was spoilt

`chaos` also makes Redis as a whole read-only and full for a while: give it one of its own, as `make chaos` does.
The drills take DATABASE_URL and REDIS_URL from the environment, and leave their reports in target/drill.";

const REPORTS: &str = "target/drill";

// One thread: the clients share the machine with the server that they ask.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    allow_many_sockets()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let reports = Path::new(REPORTS);
    let passes = match args[..] {
        ["upstream", ref options @ ..] => return upstream(options).await,
        ["ready", "--mutants", ref options @ ..] => {
            let options = Options::read(options)?;
            ready::mutants::run(&options.subject()?, options.only.as_deref(), reports).await?
        }
        ["ready", ref options @ ..] => {
            let options = Options::read(options)?;
            ready::run(&options.subject()?, options.only.as_deref(), reports).await?
        }
        ["stop-matrix", ref options @ ..] => {
            let options = Options::read(options)?;
            let extent = if options.quick { Extent::Quick } else { Extent::Full };
            stop::run(options.setup()?, extent, reports).await?
        }
        ["restart", ref options @ ..] => {
            let options = Options::read(options)?;
            restart::run(&options.setup()?, options.runs.unwrap_or(100), reports).await?
        }
        ["rollout", ref options @ ..] => roll(Options::read(options)?, reports).await?,
        ["chaos", ref options @ ..] => {
            let options = Options::read(options)?;
            chaos::run(options.setup()?, options.only.as_deref(), reports).await?
        }
        ["load", ref options @ ..] => load::run(&Options::read(options)?.setup()?, reports).await?,
        ["soak", ref options @ ..] => {
            let options = Options::read(options)?;
            chaos::soak::run(&options.setup()?, options.runs.unwrap_or(20), reports).await?
        }
        ["train", ref options @ ..] => train::run(&Options::read(options)?.setup()?).await?,
        ["mutants", "chaos", ref options @ ..] => {
            mutants::chaos(&Options::read(options)?.setup()?, reports).await?
        }
        ["mutants", "rollout", ref options @ ..] => {
            rollout::control(&Options::read(options)?.setup()?, reports).await?
        }
        ["mutants", "stop-matrix", ref options @ ..] => {
            mutants::stop_matrix(&Options::read(options)?.setup()?, reports).await?
        }
        _ => bail!("{USAGE}"),
    };
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Thousands of clients need as many descriptors, here and in the server, which inherits the limit.
fn allow_many_sockets() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most.min(100_000), most)?)
}

async fn roll(options: Options, reports: &Path) -> Result<bool> {
    let runs = options.runs.unwrap_or(5);
    match &options.cluster {
        Some(name) => {
            let cluster = Cluster { name: name.clone(), address: options.address.clone() };
            rollout::in_cluster(&cluster, runs, reports).await
        }
        None => rollout::processes(&options.setup()?, runs, reports).await,
    }
}

async fn upstream(options: &[&str]) -> Result<ExitCode> {
    let port: u16 = match options {
        [] => 0,
        ["--port", port] => port.parse().context("--port wants a number")?,
        _ => bail!("{USAGE}"),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))?;
    println!("upstream listening on http://{}", listener.local_addr()?);
    drill::upstream::serve(listener).await?;
    Ok(ExitCode::SUCCESS)
}

/// What follows the name of a drill.
#[derive(Default)]
struct Options {
    server: Option<PathBuf>,
    quick: bool,
    only: Option<String>,
    runs: Option<usize>,
    cluster: Option<String>,
    address: Option<String>,
}

impl Options {
    fn read(mut args: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        while !args.is_empty() {
            args = match args {
                ["--server", path, rest @ ..] => {
                    options.server = Some(path.into());
                    rest
                }
                ["--runs", runs, rest @ ..] => {
                    options.runs = Some(runs.parse().context("--runs wants a number")?);
                    rest
                }
                ["--cluster", name, rest @ ..] => {
                    options.cluster = Some((*name).to_owned());
                    rest
                }
                ["--address", address, rest @ ..] => {
                    options.address = Some((*address).to_owned());
                    rest
                }
                ["--only", name, rest @ ..] => {
                    options.only = Some((*name).to_owned());
                    rest
                }
                ["--quick", rest @ ..] => {
                    options.quick = true;
                    rest
                }
                _ => bail!("{USAGE}"),
            };
        }
        Ok(options)
    }

    /// The project in the current folder, and what was built of it.
    fn subject(&self) -> Result<Subject> {
        let setup = self.setup()?;
        let server = std::fs::canonicalize(&setup.server)
            .with_context(|| format!("{}: use make", setup.server.display()))?;
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let target = std::path::absolute(target)?;
        Ok(Subject { setup: Setup { server, ..setup }, project: std::env::current_dir()?, target })
    }

    fn setup(&self) -> Result<Setup> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: use make"));
        Ok(Setup {
            server: self.server.clone().context("--server is not given: use make")?,
            database_url: variable("DATABASE_URL")?,
            redis_url: variable("REDIS_URL")?,
        })
    }
}
