//! What a handler may ask for. Each handler names the parts it touches; none sees the whole. {%- capture file %}{% raw %}
use crate::backing::outbound::Outbound; // example
use crate::{
    backing::{passwords::Passwords, postgres::Postgres, redis::Redis},
    config::Config,
    http::{rate_limit::Limiter, session::Sessions},
    runtime::workers::Workers,
};
use axum::extract::FromRef;
use std::{ops::Deref, sync::Arc};

/// All parts, behind one count: the router copies this several times per request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// Each part can be asked for by its type: `State(postgres): State<Postgres>`.
macro_rules! parts {
    ($($name:ident: $part:ty,)*) => {
        pub struct Parts {
            $(pub $name: $part,)*
        }
        $(impl FromRef<App> for $part {
            fn from_ref(app: &App) -> Self {
                app.$name.clone()
            }
        })*
    };
}

parts! {
    postgres: Postgres,
    redis: Redis,
    outbound: Option<Outbound>, // example: the preview upstream, `None` without `PREVIEW_URL`
    passwords: Passwords,
    sessions: Sessions,
    limiter: Limiter,
    sign_in_limiter: SignInLimiter,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The limit on sign-ins, tighter than the one on requests.
#[derive(Clone)]
pub struct SignInLimiter(pub Limiter);

impl App {
    /// Prepares everything and connects to nothing: the service starts, and says so, with its dependencies down.
    ///
    /// # Errors
    /// When a setting cannot be used after all, for example a certificate store that is not there.
    pub fn connect(config: &Config, workers: &Workers) -> anyhow::Result<Self> {
        let redis = Redis::new(&config.redis_url, &config.redis_prefix, workers)?;
        let outbound = config.preview_url.as_ref(); // example
        let outbound = outbound.map(|url| Outbound::new(url, config.preview_timeout)); // example
        Ok(Self(Arc::new(Parts {
            postgres: Postgres::new(&config.database_url, config.database_max_connections, workers)?,
            outbound: outbound.transpose()?, // example
            passwords: Passwords::new(config.worker_threads),
            sessions: Sessions::new(redis.clone(), config),
            limiter: Limiter::new(redis.clone(), "requests", config.rate_limit),
            sign_in_limiter: SignInLimiter(Limiter::new(redis.clone(), "sign-ins", config.login_rate_limit)),
            redis,
        })))
    }
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
