//! The built binary as a child process: started with a known environment, read line by line, signalled, waited for.

mod stream;

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::{sys::signal, unistd::Pid};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use stream::Stream;

/// How many lines of each stream an error quotes.
const QUOTED: usize = 20;

/// Among how many lines the ports are looked for.
const FIRST: usize = 100;

/// A signal that tests send. `Stop` freezes the process until `Cont`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Int,
    Kill,
    Usr1,
    Stop,
    Cont,
}

impl From<Signal> for signal::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Term => Self::SIGTERM,
            Signal::Int => Self::SIGINT,
            Signal::Kill => Self::SIGKILL,
            Signal::Usr1 => Self::SIGUSR1,
            Signal::Stop => Self::SIGSTOP,
            Signal::Cont => Self::SIGCONT,
        }
    }
}

/// How a process ended. Exactly one of `code` and `signal` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<i32>,
    /// The number of the signal that killed it.
    pub signal: Option<i32>,
    /// From the last signal sent by the harness, else from the start.
    pub took: Duration,
}

/// What a one-shot command printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// None when a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `bin args…` to its end, with these variables and no others. At most 30 seconds.
///
/// # Errors
///
/// When it cannot be started, or takes longer; it is killed then.
pub async fn run(bin: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let bin = bin.as_ref();
    let mut command = Command::new(bin);
    command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output())
        .await
        .with_context(|| format!("{} {args:?} took over 30 s", bin.display()))?
        .with_context(|| format!("cannot start {}", bin.display()))?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What to start, and with which settings.
pub struct Builder {
    bin: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    limit: Duration,
    stdin: Stdio,
}

impl Builder {
    /// Sets one variable of the otherwise empty environment. The ports are 0 and the host is 127.0.0.1 unless set here.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// Replaces the arguments, which are `serve`.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    /// Hands over a listening socket, as systemd does with a socket unit: it stays open whatever becomes of the process.
    ///
    /// # Errors
    ///
    /// When the socket cannot be duplicated.
    pub fn socket(mut self, socket: &TcpListener) -> Result<Self> {
        // It comes in as stdin, since only a shell may say which number a descriptor has in the child.
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut args = vec!["-c".to_owned(), script.to_owned(), self.bin.display().to_string()];
        args.append(&mut self.args);
        let stdin = Stdio::from(OwnedFd::from(socket.try_clone()?));
        Ok(Self { bin: "/bin/sh".into(), args, stdin, ..self })
    }

    /// Replaces the 30 seconds that each wait on this process may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the process and waits until it has logged its ports.
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends early, or logs no `listening` line in time.
    pub async fn start(self) -> Result<Server> {
        let server = self.spawn()?;
        server.listening().await?;
        Ok(server)
    }

    /// Starts the process and returns at once, for tests of the start itself.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(self) -> Result<Server> {
        let mut child = Command::new(&self.bin)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .stdin(self.stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.bin.display()))?;
        let pid = i32::try_from(child.id().context("the child has no pid")?)?;
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let (ended, exit) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(stdout.clone().fill(child.stdout.take().context("stdout is piped")?));
        tasks.spawn(stderr.clone().fill(child.stderr.take().context("stderr is piped")?));
        tasks.spawn(async move {
            let status = child.wait().await;
            ended.send_replace(status.ok().map(|status| (status, Instant::now())));
        });
        let since = Mutex::new(Instant::now());
        Ok(Server { pid: Pid::from_raw(pid), limit: self.limit, stdout, stderr, exit, since, _tasks: tasks })
    }
}

/// A running process; it is killed when this value is dropped.
pub struct Server {
    pid: Pid,
    limit: Duration,
    stdout: Stream,
    stderr: Stream,
    exit: watch::Receiver<Option<(ExitStatus, Instant)>>,
    since: Mutex<Instant>,
    /// Dropping them drops the child, which kills it.
    _tasks: JoinSet<()>,
}

impl Server {
    /// For the binary at this path, which in a test is `env!("CARGO_BIN_EXE_server")`.
    pub fn builder(bin: impl Into<PathBuf>) -> Builder {
        let env = [("HOST", "127.0.0.1"), ("PORT", "0"), ("OPS_PORT", "0")];
        Builder {
            bin: bin.into(),
            args: vec!["serve".to_owned()],
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            limit: Duration::from_secs(30),
            stdin: Stdio::null(),
        }
    }

    /// An address on the public port; `path` starts with a slash.
    ///
    /// # Panics
    ///
    /// When the process has not logged its ports yet: only after [`Builder::spawn`] without [`Server::listening`].
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// An address on the operations port; `path` starts with a slash.
    ///
    /// # Panics
    ///
    /// As [`Server::url`].
    pub fn ops_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ops_port())
    }

    /// The public port.
    ///
    /// # Panics
    ///
    /// As [`Server::url`].
    pub fn port(&self) -> u16 {
        self.ports().expect("wait for `listening` first").0
    }

    /// The operations port.
    ///
    /// # Panics
    ///
    /// As [`Server::url`].
    pub fn ops_port(&self) -> u16 {
        self.ports().expect("wait for `listening` first").1
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// All lines of stdout so far.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// Reads no more of stdout, as a stuck log collector would, until told to go on. The pipe fills then, and the process
    /// must not care.
    pub fn hold_stdout(&self, hold: bool) {
        self.stdout.held.send_replace(hold);
    }

    /// All of stderr so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr.lines())
    }

    /// Waits until the process has logged its ports.
    ///
    /// # Errors
    ///
    /// As [`Server::line`].
    pub async fn listening(&self) -> Result<()> {
        self.line(|line| ports(line).is_some()).await.map(drop)
    }

    /// Waits until `/readyz` answers 200, which is `ready` or `degraded`.
    ///
    /// # Errors
    ///
    /// When the process ends, or is not ready in time.
    pub async fn ready(&self) -> Result<()> {
        self.listening().await?;
        let mut last = None;
        let poll = async {
            loop {
                last = status(self.ops_port(), "/readyz").await.ok();
                if last == Some(200) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = poll => Ok(()),
            _ = self.ended() => Err(self.explain("the process ended before it was ready")),
            () = sleep(self.limit) => Err(self.explain(&format!("not ready after {:?}; /readyz said {last:?}", self.limit))),
        }
    }

    /// The first line of stdout that is JSON and matches, already logged or still to come.
    ///
    /// # Errors
    ///
    /// When stdout ends without one, or none comes in time.
    pub async fn line(&self, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let search = async {
            let mut seen = 0;
            let mut news = self.stdout.news();
            loop {
                let ended = *news.borrow_and_update();
                let lines = self.stdout.since(seen);
                if let Some(line) =
                    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).find(&matches)
                {
                    return Some(line);
                }
                seen += lines.len();
                if ended || news.changed().await.is_err() {
                    return None;
                }
            }
        };
        match timeout(self.limit, search).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.explain("stdout ended without the expected line")),
            Err(_) => Err(self.explain(&format!("the expected line did not come within {:?}", self.limit))),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit.borrow().is_some() {
            bail!(self.explain(&format!("cannot send {signal:?}: the process has ended")));
        }
        *self.since.lock().expect("no holder of this lock can panic") = Instant::now();
        signal::kill(self.pid, signal::Signal::from(signal)).with_context(|| format!("sending {signal:?}"))
    }

    /// Waits for the end of the process, and of its output.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub async fn wait(&self) -> Result<Exit> {
        use std::os::unix::process::ExitStatusExt as _;

        let over = timeout(self.limit, self.ended()).await;
        let (status, at) =
            over.map_err(|_| self.explain(&format!("still running after {:?}", self.limit)))??;
        // A grandchild may hold the pipes open: the rest of the output is worth a moment, not more.
        let rest = async { tokio::join!(self.stdout.ended(), self.stderr.ended()) };
        timeout(Duration::from_secs(1), rest).await.ok();
        let since = *self.since.lock().expect("no holder of this lock can panic");
        Ok(Exit { code: status.code(), signal: status.signal(), took: at.saturating_duration_since(since) })
    }

    async fn ended(&self) -> Result<(ExitStatus, Instant)> {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.context("the process cannot be waited for")?;
        exit.context("the process has ended")
    }

    fn ports(&self) -> Option<(u16, u16)> {
        // Among the first lines: a search through all of a busy server's log would take long.
        let first = self.stdout.first(FIRST);
        first.iter().find_map(|line| ports(&serde_json::from_str(line).ok()?))
    }

    /// An error that shows what the process last said.
    fn explain(&self, what: &str) -> Error {
        let exit = self.exit.borrow().map_or("running".to_owned(), |(status, _)| status.to_string());
        let quote = |stream: &Stream| {
            let lines = stream.lines();
            text(&lines[lines.len().saturating_sub(QUOTED)..])
        };
        anyhow!("{what} ({exit})\n--- stdout\n{}--- stderr\n{}", quote(&self.stdout), quote(&self.stderr))
    }
}

/// The ports in the start line: `{"msg":"listening","port":…,"ops_port":…}`.
fn ports(line: &Value) -> Option<(u16, u16)> {
    let port = |name: &str| u16::try_from(line.get(name)?.as_u64()?).ok();
    (line.get("msg")? == "listening").then_some((port("port")?, port("ops_port")?))
}

/// Asks without a client: this must work in a process that has set up no TLS.
pub(crate) async fn status(port: u16, path: &str) -> Result<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        anyhow::Ok(std::str::from_utf8(&head)?.strip_prefix("HTTP/1.1 ").context("no HTTP")?.parse()?)
    };
    timeout(Duration::from_secs(2), exchange).await?
}

/// The lines as one text, each with its line end.
fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests;
