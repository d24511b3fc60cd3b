//! The cases: a peer or a dependency that could hold up a stop, one server each.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    peers::{Peers, Played, seconds},
    stage::{COLLECTOR, PASSWORD, Setup, Stage},
};
use crate::{
    limits::{self, Limit},
    process::Signal,
    proxy::Mode,
    report::Row,
};

/// One way to make a stop hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Idle,
    SilentSocket,
    HalfHead,
    HalfBody,
    IdleKeepAlive,
    MuteHttp2,
    SlowRequest,
    StuckRequest,
    #[cfg(target_os = "linux")]
    WedgedRuntime,
    DeadCollector,
    FrozenPostgres,
    FrozenRedis,
    AllBlackHoled,
    SecondSignal,
    StartRefused,
    StartBlackHoled,
}

/// What must come of it.
struct Expected {
    exit: &'static Limit,
    code: i32,
    /// Whether the last log line is there. A second signal leaves no time for it, and a wedged runtime nobody to write it.
    last_line: bool,
}

impl Case {
    pub const ALL: &[Self] = &[
        Self::Idle,
        Self::SilentSocket,
        Self::HalfHead,
        Self::HalfBody,
        Self::IdleKeepAlive,
        Self::MuteHttp2,
        Self::SlowRequest,
        Self::StuckRequest,
        #[cfg(target_os = "linux")]
        Self::WedgedRuntime,
        Self::DeadCollector,
        Self::FrozenPostgres,
        Self::FrozenRedis,
        Self::AllBlackHoled,
        Self::SecondSignal,
        Self::StartRefused,
        Self::StartBlackHoled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Idle => "nothing connected",
            Self::SilentSocket => "silent socket",
            Self::HalfHead => "half a head",
            Self::HalfBody => "half a body",
            Self::IdleKeepAlive => "idle keep-alive",
            Self::MuteHttp2 => "mute HTTP/2",
            Self::SlowRequest => "slow request, 8 s",
            Self::StuckRequest => "stuck request, 60 s",
            #[cfg(target_os = "linux")]
            Self::WedgedRuntime => "wedged, every runtime stopped",
            Self::DeadCollector => "dead collector",
            Self::FrozenPostgres => "frozen Postgres, 5 requests at it",
            Self::FrozenRedis => "frozen Redis, 5 requests at it",
            Self::AllBlackHoled => "Postgres, Redis, collector black-holed",
            Self::SecondSignal => "second signal after 1 s",
            Self::StartRefused => "signal while starting, services refused",
            Self::StartBlackHoled => "signal while starting, services black-holed",
        }
    }

    fn expected(self) -> Expected {
        let (exit, code, last_line) = match self {
            Self::Idle | Self::SilentSocket | Self::IdleKeepAlive => (&limits::EXIT_IDLE, 0, true),
            Self::StuckRequest => (&limits::EXIT, 1, true),
            #[cfg(target_os = "linux")]
            Self::WedgedRuntime => (&limits::EXIT, 1, false),
            Self::SecondSignal => (&limits::EXIT_SECOND_SIGNAL, 1, false),
            Self::StartRefused | Self::StartBlackHoled => (&limits::EXIT_STARTING, 0, true),
            _ => (&limits::EXIT, 0, true),
        };
        Expected { exit, code, last_line }
    }

    fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // The upstream is slow, and nothing but the stop may end the request.
            Self::SlowRequest | Self::StuckRequest => {
                &[("REQUEST_TIMEOUT", "90s"), ("PREVIEW_TIMEOUT", "80s")]
            }
            Self::DeadCollector | Self::AllBlackHoled => &[("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)],
            _ => &[],
        }
    }

    fn services(self) -> Mode {
        match self {
            Self::StartRefused => Mode::Refuse,
            Self::StartBlackHoled => Mode::BlackHole,
            _ => Mode::Pass,
        }
    }

    /// Plays the case, and holds what came of it against what must.
    pub async fn row(self, setup: &Setup) -> Row {
        match self.play(setup).await {
            Ok(Some(played)) => self.judge(&played),
            Ok(None) => Row {
                name: format!("{}: left out, for want of the example", self.name()),
                cells: vec!["-".to_owned(); super::COLUMNS.len()],
                ..Row::default()
            },
            Err(error) => Row {
                name: self.name().to_owned(),
                cells: vec!["-".to_owned(); super::COLUMNS.len()],
                misses: vec![format!("broke off: {error:#}")],
                ..Row::default()
            },
        }
    }

    /// `None` when the server has no route that it takes.
    async fn play(self, setup: &Setup) -> Result<Option<Played>> {
        let stage = Stage::start(setup, &format!("{self:?}"), self.services(), self.env()).await?;
        if self.services() == Mode::Pass {
            stage.server.ready().await?;
        }
        let mut peers = Peers::default();
        if !self.prepare(&stage, &mut peers).await? {
            return Ok(None);
        }
        // What was just written must have been read.
        sleep(Duration::from_millis(100)).await;
        let signal = Instant::now();
        stage.server.signal(Signal::Term)?;
        if self == Self::SecondSignal {
            sleep(Duration::from_secs(1)).await;
            stage.server.signal(Signal::Term)?;
        }
        let exit = stage.server.wait().await?;
        Ok(Some(Played { exit, lines: stage.server.lines(), ends: peers.ends(signal).await? }))
    }

    /// Whether the server has the route that it takes.
    async fn prepare(self, stage: &Stage, peers: &mut Peers) -> Result<bool> {
        match self {
            Self::Idle | Self::SecondSignal | Self::StartRefused | Self::StartBlackHoled => {}
            Self::SilentSocket => peers.hold(stage, b"").await?,
            Self::HalfHead => peers.hold(stage, b"GET / HTTP/1.1\r\nhost: localhost\r\n").await?,
            Self::HalfBody => {
                let head = "content-type: application/json\r\ncontent-length: 100\r\n";
                peers.ask(stage, "POST /v1/accounts", head, "{\"email\":").await?;
            }
            Self::IdleKeepAlive => peers.keep_alive(stage).await?,
            Self::MuteHttp2 => peers.hold(stage, HTTP2_PREFACE).await?,
            Self::SlowRequest => return preview(stage, peers, Duration::from_secs(8)).await,
            Self::StuckRequest => return preview(stage, peers, Duration::from_secs(60)).await,
            #[cfg(target_os = "linux")]
            Self::WedgedRuntime => peers.wedge(stage).await?,
            Self::DeadCollector => peers.keep_alive(stage).await?,
            Self::FrozenPostgres | Self::FrozenRedis | Self::AllBlackHoled => {
                let cookie = stage.sign_up().await?;
                self.strike(stage).await;
                for _ in 0..5 {
                    change_password(stage, peers, &cookie).await?;
                }
            }
        }
        Ok(true)
    }

    async fn strike(self, stage: &Stage) {
        match self {
            Self::FrozenPostgres => stage.postgres.set(Mode::Freeze).await,
            Self::FrozenRedis => stage.redis.set(Mode::Freeze).await,
            _ => {
                for proxy in [&stage.postgres, &stage.redis, &stage.collector] {
                    proxy.set(Mode::BlackHole).await;
                }
            }
        }
    }

    fn judge(self, played: &Played) -> Row {
        let Expected { exit, code, last_line } = self.expected();
        let (took, stopped) = (seconds(played.exit.took), played.stopped());
        let lost = played.ends.iter().filter(|end| end.status.is_none()).count();
        let mut misses: Vec<String> =
            [exit.miss(took), limits::LOST.miss(lost as f64)].into_iter().flatten().collect();
        if played.exit.code != Some(code) {
            misses.push(format!("exit code {code} expected"));
        }
        if last_line && !stopped {
            misses.push("the last line is not `stopped`".to_owned());
        }
        misses.extend(self.more_misses(played));
        let ends: Vec<_> =
            played.ends.iter().map(|end| json!({ "after_s": end.after, "how": end.how })).collect();
        Row {
            name: self.name().to_owned(),
            cells: vec![
                format!("{took:.2}"),
                played.exit.code.map_or("killed".to_owned(), |code| code.to_string()),
                played.ends.len().to_string(),
                lost.to_string(),
                String::new(),
                String::new(),
                if stopped { "yes" } else { "no" }.to_owned(),
            ],
            misses,
            point: Some((took, exit.value())),
            detail: json!({ "requests": ends, "log": played.lines }),
            ..Row::default()
        }
    }

    fn more_misses(self, played: &Played) -> Vec<String> {
        let mut misses = Vec::new();
        // A lost request, with how it ended, whatever the case.
        misses.extend(
            played
                .ends
                .iter()
                .filter(|end| end.status.is_none())
                .map(|end| format!("lost after {:.2} s: {}", end.after, end.how)),
        );
        let (status, limit) = match self {
            Self::SlowRequest => (200, &limits::SLOW_ANSWER),
            Self::StuckRequest => (503, &limits::CUT),
            _ => return misses,
        };
        for end in &played.ends {
            misses.extend(limit.miss(end.after));
            if end.status.is_some_and(|answered| answered != status) {
                misses.push(format!("{status} expected: {}", end.how));
            }
        }
        if self == Self::StuckRequest && !played.names(PREVIEW_ROUTE) {
            misses.push(format!("no warning names {PREVIEW_ROUTE}"));
        }
        misses
    }
}

const PREVIEW_ROUTE: &str = "/v1/bookmarks/{id}/preview";
/// The preface, and settings as they are. Nothing is ever read, and so nothing acknowledged.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request that needs Redis, then Postgres.
async fn change_password(stage: &Stage, peers: &mut Peers, cookie: &str) -> Result<()> {
    let body = json!({ "current_password": PASSWORD, "new_password": PASSWORD }).to_string();
    let length = body.len();
    let headers = format!("{cookie}content-type: application/json\r\ncontent-length: {length}\r\n");
    peers.ask(stage, "PUT /v1/account/password", &headers, &body).await
}

/// A request that the upstream holds up for this long. Only the example's previews wait for anything as long as that:
/// `false` when it is deleted.
async fn preview(stage: &Stage, peers: &mut Peers, delay: Duration) -> Result<bool> {
    let cookie = stage.sign_up().await?;
    let Some(path) = stage.cold_preview(&cookie).await? else { return Ok(false) };
    stage.upstream.delay(delay);
    peers.ask(stage, &format!("GET {path}"), &cookie, "").await?;
    Ok(true)
}
