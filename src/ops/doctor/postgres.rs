//! Whether Postgres is one that the service can work with.
use super::Report;
use crate::{
    backing::{migrate, postgres::Postgres},
    config::Config,
    runtime::workers::Workers,
};
use std::time::{Duration, SystemTime};

/// The first that looks whether its client is still there.
const OLDEST: u32 = 14;
const STATE: &str = "SELECT current_setting('server_version'), current_setting('transaction_read_only') = 'on', \
    extract(epoch FROM clock_timestamp())::float8, current_setting('statement_timeout') = '0', \
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')";

pub async fn examine(report: &mut Report, config: &Config) -> anyhow::Result<()> {
    report.resolve(&config.database_url).await?;
    let db = Postgres::new(&config.database_url, 1, &Workers::none())?;
    let state = db.read("doctor", async |conn| sqlx::query_as(STATE).fetch_one(conn).await);
    let (version, is_read_only, clock, is_patient, in_use): (String, bool, f64, bool, i64) = state.await?;
    report.version(&version, OLDEST);
    report.clock(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(clock));
    if is_read_only {
        report.fault("takes no writes", "give the primary's address, or see who made it read-only");
    }
    if is_patient {
        let cure = "give the role its time limits: docs/scaling.md";
        report.warning("the service's time limits do not reach it: a pooler stands in between", cure);
    }
    connections(report, config.database_max_connections, db.most_connections().await?, in_use);
    schema(report, &db.migrations().await?);
    db.close().await;
    Ok(())
}

fn connections(report: &mut Report, each: usize, most: i64, in_use: i64) {
    let processes = usize::try_from(most).unwrap_or_default() / each;
    let text =
        format!("{most} connections, {in_use} in use: enough for {processes} processes with {each} each");
    let cure =
        "lower DATABASE_MAX_CONNECTIONS, or raise max_connections (or the role's, or the database's limit)";
    match processes {
        0 => report.fault(text, cure),
        // A new process starts before the old one goes.
        1 => report.warning(text, cure),
        _ => report.good(text),
    }
}

fn schema(report: &mut Report, had: &[i64]) {
    let ours = migrate::versions();
    let missing: Vec<_> = ours.iter().filter(|version| !had.contains(version)).collect();
    if missing.is_empty() {
        // After a release was rolled back there are.
        let newer = had.len() - ours.len();
        report.good(format_args!("all {} migrations are applied, and {newer} newer ones", ours.len()));
    } else {
        report.fault(format_args!("migrations are missing: {missing:?}"), "run `server migrate`");
    }
}
