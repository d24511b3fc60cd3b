//! The deployment in the cluster of the current kubectl context: restarted, deleted pod by pod, drained.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{net::lookup_host, process::Command, time::sleep};

use super::{Killed, MIX, Watched};
use crate::report::progress;

/// For one step, on a busy machine.
const LIMIT: &str = "--timeout=300s";
/// The load comes from one address and one account.
const LIMITS: [&str; 2] = ["RATE_LIMIT", "LOGIN_RATE_LIMIT"];

pub struct Cluster {
    /// Of the deployment and its service.
    pub name: String,
    /// Where the service is reached from here; without it, its cluster address, which only a node reaches.
    pub address: Option<String>,
}

/// Limits that were lifted, to be put back.
pub struct Lifted<'a>(&'a Cluster);

impl Lifted<'_> {
    pub async fn restore(self) -> Result<()> {
        progress("putting the limits back");
        let reset = LIMITS.map(|name| format!("{name}-"));
        self.0.kubectl(&["set", "env", &self.0.deployment(), &reset[0], &reset[1]]).await?;
        self.0.settled().await
    }
}

impl Cluster {
    fn deployment(&self) -> String {
        format!("deployment/{}", self.name)
    }

    fn selector(&self) -> String {
        format!("app.kubernetes.io/name={}", self.name)
    }

    pub async fn lift_limits(&self) -> Result<Lifted<'_>> {
        progress("lifting the limits of requests");
        let lifted = LIMITS.map(|name| format!("{name}=1000000/1m"));
        self.kubectl(&["set", "env", &self.deployment(), &lifted[0], &lifted[1]]).await?;
        self.settled().await?;
        Ok(Lifted(self))
    }

    pub async fn address(&self) -> Result<SocketAddr> {
        let address = match &self.address {
            Some(address) => address.clone(),
            None => {
                let format = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
                self.kubectl(&["get", "service", &self.name, "--output", format]).await?
            }
        };
        let mut found = lookup_host(&address).await.with_context(|| format!("looking up {address}"))?;
        found.next().with_context(|| format!("{address} has no address"))
    }

    pub async fn restart(&self) -> Result<()> {
        progress("rolling restart");
        self.kubectl(&["rollout", "restart", &self.deployment()]).await?;
        self.settled().await
    }

    pub async fn delete_pod(&self) -> Result<()> {
        progress("deleting a pod");
        self.kubectl(&["delete", "pod", &self.a_pod().await?, "--wait"]).await?;
        self.settled().await
    }

    /// Empties the node of a pod, if there is another node; whether it did.
    pub async fn drain(&self) -> Result<bool> {
        let nodes = self.kubectl(&["get", "nodes", "--output", "name"]).await?;
        if nodes.lines().count() < 2 {
            return Ok(false);
        }
        progress("draining a node");
        let pod = self.a_pod().await?;
        let node = self.kubectl(&["get", "pod", &pod, "--output", "jsonpath={.spec.nodeName}"]).await?;
        let ours = format!("--pod-selector={}", self.selector());
        let drained = self
            .kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", &ours, LIMIT])
            .await;
        let settled = self.settled().await;
        self.kubectl(&["uncordon", &node]).await?;
        drained?;
        settled?;
        Ok(true)
    }

    /// Takes a pod away without any grace.
    pub async fn kill(&self, watched: &Watched) -> Result<Killed> {
        progress("killing a pod");
        self.kubectl(&["delete", "pod", &self.a_pod().await?, "--grace-period=0", "--force"]).await?;
        sleep(Duration::from_secs(2)).await;
        let killed = Killed { in_flight: MIX.at_once(), failed_soon: watched.failed() };
        self.settled().await?;
        Ok(killed)
    }

    async fn a_pod(&self) -> Result<String> {
        let pods = self.pods().await?;
        Ok(pods.first().context("the deployment has no pod")?.clone())
    }

    async fn pods(&self) -> Result<Vec<String>> {
        let format = "jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}";
        let pods = self.kubectl(&["get", "pods", "--selector", &self.selector(), "--output", format]).await?;
        Ok(pods.lines().map(str::to_owned).collect())
    }

    /// Waits until every pod is a new one, and ready, and no old one is left.
    async fn settled(&self) -> Result<()> {
        self.kubectl(&["rollout", "status", &self.deployment(), LIMIT]).await?;
        for _ in 0..120 {
            let wanted = self
                .kubectl(&["get", &self.deployment(), "--output", "jsonpath={.status.readyReplicas}"])
                .await?;
            if wanted == self.pods().await?.len().to_string() {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!(
            "pods of before are still there after a minute: kubectl get pods --selector {}",
            self.selector()
        )
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("kubectl");
        let output = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.context("kubectl cannot be started")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), error.trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}
