//! Item 1: what was killed is started again, by the rules of the unit and of the Deployment.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{Finding, Subject, unit::Unit};
use crate::{
    client::{Load, Mix},
    limits,
    process::{self, Exit, Server, Signal},
    restart,
    stop::stage::Setup,
};

const KILLS: usize = 3;
const MIX: Mix =
    Mix { keep_alive: 4, thinking: 8, think: Duration::from_millis(50), fresh: 4, http2: 2, streams: 2 };
/// Answers before each kill.
const ANSWERS: u64 = 300;

pub async fn check(subject: &Subject) -> Result<Finding> {
    let unit = Unit::read(&subject.project.join("deploy/systemd/server.service"))?;
    let mut finding = Finding::default();
    deployment(&subject.project, &mut finding)?;
    let outages = kills(&unit, &subject.setup, &mut finding).await?;
    // A fault is one more end to be got over; settings that are wrong are not.
    let exit = |code| Exit { code: Some(code), signal: None, took: Duration::ZERO };
    finding.misses.extend(unit.again(&exit(1), &[]).err());
    finding.unless(unit.again(&exit(78), &[]).is_err(), "the unit tries again what invalid settings prevent");
    let worst = outages.iter().max().map_or(f64::NAN, |outage| outage.as_secs_f64() * 1000.0);
    finding.hold(&limits::RESTART_OUTAGE, worst);
    finding.evidence = format!(
        "{} of {KILLS} kills under load got over, first 200 after {worst:.0} ms at most (Restart={}, {:?}); probes and policy of the Deployment fit",
        outages.len(),
        unit.restart,
        unit.pause,
    );
    Ok(finding)
}

/// Does what systemd does with the unit, and kills the server again and again; how long nobody answered.
async fn kills(unit: &Unit, setup: &Setup, finding: &mut Finding) -> Result<Vec<Duration>> {
    let (port, ops_port) = (restart::free_port().await?, restart::free_port().await?);
    let start = async || start(unit, setup, port, ops_port).await;
    let mut server = start().await?;
    let mut starts = vec![Instant::now()];
    restart::answers(port, "/").await?;
    let load = Load::start(SocketAddr::from(([127, 0, 0, 1], port)), "/", MIX);
    let mut outages = Vec::new();
    for _ in 0..KILLS {
        let busy = load.answers(load.counts().answers() + ANSWERS);
        timeout(Duration::from_secs(10), busy).await.context("the load gets no answers")?;
        let killed = Instant::now();
        server.signal(Signal::Kill)?;
        let exit = server.wait().await?;
        if let Err(why) = unit.again(&exit, &starts) {
            finding.misses.push(why);
            break;
        }
        sleep(unit.pause).await;
        server = start().await?;
        starts.push(Instant::now());
        match restart::answers(port, "/").await {
            Ok(at) => outages.push(at - killed),
            Err(error) => finding.misses.push(format!("{error:#}")),
        }
    }
    Ok(outages)
}

async fn start(unit: &Unit, setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    if !unit.before.is_empty() {
        let env = [("DATABASE_URL", &*setup.database_url), ("REDIS_URL", &*setup.redis_url)];
        let done = process::run(&setup.server, &words(&unit.before), &env).await?;
        ensure!(done.code == Some(0), "ExecStartPre: {}{}", done.stdout, done.stderr);
    }
    restart::server(setup, port, ops_port).args(&words(&unit.start)).spawn()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The pods' restart policy, and probes that neither give up a slow start nor restart for an outage's sake.
fn deployment(project: &Path, finding: &mut Finding) -> Result<()> {
    let path = project.join("deploy/deployment.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let deployment: Value = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    let faults = pod_faults(&deployment["spec"]["template"]["spec"]);
    finding.misses.extend(faults.into_iter().map(str::to_owned));
    Ok(())
}

fn pod_faults(pod: &Value) -> Vec<&'static str> {
    let server = &pod["containers"][0];
    let number = |probe: &str, name: &str| server[probe][name].as_u64().unwrap_or_default();
    let asks = |probe: &str, path: &str| server[probe]["httpGet"]["path"] == path;
    let patience = number("startupProbe", "periodSeconds") * number("startupProbe", "failureThreshold");
    let rules = [
        (pod["restartPolicy"].is_null() || pod["restartPolicy"] == "Always", "restartPolicy is not Always"),
        (asks("livenessProbe", "/healthz"), "the liveness probe does not ask /healthz"),
        (asks("readinessProbe", "/readyz"), "the readiness probe does not ask /readyz"),
        (number("livenessProbe", "failureThreshold") >= 2, "one failed liveness probe restarts the pod"),
        (patience >= 10, "the startup probe gives up within 10 s"),
    ];
    rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "containers:\n- startupProbe: {periodSeconds: 1, failureThreshold: 30}\n  \
        livenessProbe: {httpGet: {path: /healthz}, failureThreshold: 3}\n  readinessProbe: {httpGet: {path: /readyz}}\n";

    #[test]
    fn a_pod_that_would_stay_down_or_restart_for_nothing_is_found() {
        let faults = |text: &str| pod_faults(&serde_saphyr::from_str(text).unwrap()).len();
        assert_eq!(faults(POD), 0);
        for (right, wrong) in [
            ("containers", "restartPolicy: Never\ncontainers"),
            ("path: /healthz", "path: /readyz"),
            ("path: /readyz", "path: /"),
            ("failureThreshold: 3}", "failureThreshold: 1}"),
            ("failureThreshold: 30", "failureThreshold: 3"),
        ] {
            assert_eq!(faults(&POD.replacen(right, wrong, 1)), 1, "{wrong}");
        }
    }
}
