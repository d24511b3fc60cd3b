//! The manifests of deploy/: that they agree with each other, with the settings and with the code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use app::config::Config;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

const NAME: &str = env!("CARGO_PKG_NAME");

/// The text of each file, by its path.
type Files = BTreeMap<String, String>;

fn files() -> Files {
    let mut files = Files::new();
    for folder in ["deploy", "deploy/dev", "deploy/monitoring", "deploy/optional", "deploy/systemd"] {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                let path = entry.path().to_str().unwrap().to_owned();
                files.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    files
}

/// What is wrong, in words.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, holds: bool, fault: &str) {
        if !holds {
            self.0.push(fault.to_owned());
        }
    }
}

/// The manifest of this kind, which a file of deploy/ holds alone.
fn manifest(files: &Files, kind: &str) -> Value {
    let text = &files[&format!("deploy/{}.yaml", kind.to_lowercase())];
    let manifest: Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(manifest["kind"], kind);
    manifest
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// The settings that a pod gets.
fn config(files: &Files) -> Result<Config, Vec<String>> {
    let data = manifest(files, "ConfigMap")["data"].clone();
    let worker_threads = manifest(files, "Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"]
        ["limits"]["cpu"]
        .clone();
    Config::from_lookup(|name| {
        Ok(match name {
            "DATABASE_URL" => Some("postgres://h/d".to_owned()),
            "REDIS_URL" => Some("redis://h".to_owned()),
            "WORKER_THREADS" => worker_threads.as_str().map(str::to_owned),
            _ => data[name].as_str().map(str::to_owned),
        })
    })
}

fn names(files: &Files, faults: &mut Faults) {
    let label = serde_json::json!({ "app.kubernetes.io/name": NAME });
    for (path, text) in files.iter().filter(|(path, _)| Path::new(path).parent() == Some(Path::new("deploy")))
    {
        let manifest: Value = serde_saphyr::from_str(text).unwrap();
        faults.unless(manifest["metadata"]["name"] == NAME, &format!("{path}: name"));
        faults.unless(manifest["metadata"]["labels"] == label, &format!("{path}: labels"));
        faults.unless(manifest["kind"] != "Secret", &format!("{path}: secrets are made elsewhere"));
    }
    let deployment = manifest(files, "Deployment");
    let template = &deployment["spec"]["template"];
    let mut selectors = vec![
        &deployment["spec"]["selector"]["matchLabels"],
        &template["metadata"]["labels"],
        &template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        &template["spec"]["topologySpreadConstraints"][1]["labelSelector"]["matchLabels"],
    ];
    let [service, budget, policy] =
        ["Service", "PodDisruptionBudget", "NetworkPolicy"].map(|kind| manifest(files, kind)["spec"].clone());
    selectors.extend([
        &service["selector"],
        &budget["selector"]["matchLabels"],
        &policy["podSelector"]["matchLabels"],
    ]);
    faults.unless(selectors.iter().all(|selector| **selector == label), "a selector misses the pods");
    let target = manifest(files, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].clone();
    faults.unless(target["kind"] == "Deployment" && target["name"] == NAME, "the autoscaler's target");
    let image = format!("{NAME}:{}", env!("CARGO_PKG_VERSION"));
    for container in ["containers", "initContainers"].map(|list| &template["spec"][list][0]) {
        let registry = container["image"].as_str().unwrap().strip_suffix(&image);
        let is_ours = registry.is_some_and(|registry| registry.is_empty() || registry.ends_with('/'));
        faults.unless(is_ours, "image: not this version's");
        faults.unless(container["envFrom"][0]["configMapRef"]["name"] == NAME, "the name of the ConfigMap");
    }
    faults.unless(template["spec"]["serviceAccountName"] == NAME, "the name of the ServiceAccount");
}

fn settings(files: &Files, faults: &mut Faults) {
    let config = match config(files) {
        Ok(config) => config,
        Err(errors) => return faults.0.extend(errors),
    };
    let data = manifest(files, "ConfigMap")["data"].clone();
    for (name, value) in data.as_object().unwrap() {
        faults.unless(value.is_string(), &format!("{name} needs quotes"));
        let known = config.effective.iter().any(|(known, _)| known == name) || name.starts_with("OTEL_");
        faults.unless(known, &format!("{name} is no setting"));
    }
    let deployment = manifest(files, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let volume = &pod["volumes"][0]["secret"];
    faults.unless(volume["secretName"] == NAME, "the name of the Secret");
    let (server, trial) = (&pod["containers"][0], &files["deploy/dev/secret.yaml"]);
    let folder = server["volumeMounts"][0]["mountPath"].as_str().unwrap();
    for variable in ["DATABASE_URL_FILE", "REDIS_URL_FILE"] {
        let given = server["env"].as_array().unwrap().iter().find(|given| given["name"] == variable);
        let key = given.and_then(|given| given["value"].as_str()?.strip_prefix(folder)?.strip_prefix('/'));
        faults.unless(key.is_some_and(|key| trial.contains(&format!("  {key}: "))), variable);
    }
    let pods = number(&manifest(files, "HorizontalPodAutoscaler")["spec"]["maxReplicas"])
        + number(&deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]);
    // Of Postgres' usual 100, three are kept for its superuser, and a migration takes one.
    faults.unless(pods as usize * config.database_max_connections <= 96, "too many connections for Postgres");
    // In MiB, as measured: the process itself, each connection with the first bytes of a body, all larger bodies
    // together (`LARGE` in src/http/body.rs), and a password hash on each core.
    let worst = 17 + config.max_connections * (23 + 16) / 1024 + 64 + 19 * config.worker_threads;
    let memory = &server["resources"]["limits"]["memory"];
    let limit: usize =
        memory.as_str().and_then(|limit| limit.strip_suffix("Mi")?.parse().ok()).unwrap_or_default();
    faults.unless(worst * 100 <= limit * 85, "MAX_CONNECTIONS: more than the memory limit has room for");
    faults.unless(server["resources"]["requests"]["memory"] == *memory, "memory: request and limit differ");
    let alert = format!("{limit} * 1024 * 1024");
    faults.unless(files["deploy/monitoring/rules.yaml"].contains(&alert), "MemoryRunsShort: another limit");
}

fn ports(files: &Files, faults: &mut Faults) {
    let Ok(config) = config(files) else { return };
    let deployment = manifest(files, "Deployment");
    let template = &deployment["spec"]["template"];
    let server = &template["spec"]["containers"][0];
    let port = |name: &str| {
        let ports = server["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).map_or(0, |port| number(&port["containerPort"]))
    };
    faults.unless(port("http") == u64::from(config.port), "http: not PORT");
    faults.unless(port("ops") == u64::from(config.ops_port), "ops: not OPS_PORT");
    let annotated = &template["metadata"]["annotations"]["prometheus.io/port"];
    faults
        .unless(annotated.as_str() == Some(&config.ops_port.to_string()), "the port that Prometheus is told");
    let service = manifest(files, "Service")["spec"]["ports"].clone();
    faults.unless(
        service.as_array().unwrap().len() == 1 && service[0]["targetPort"] == "http",
        "Service: http alone",
    );
    let ingress = manifest(files, "NetworkPolicy")["spec"]["ingress"].clone();
    faults.unless(
        ingress[0]["ports"][0]["port"] == "http" && ingress[1]["ports"][0]["port"] == "ops",
        "NetworkPolicy",
    );
    let routes = fs::read_to_string("src/ops/mod.rs").unwrap();
    for (probe, path) in [("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")] {
        let get = &server[format!("{probe}Probe")]["httpGet"];
        faults.unless(get["path"] == path && get["port"] == "ops", &format!("{probe}: {get}"));
        faults.unless(routes.contains(&format!(".route(\"{path}\"")), &format!("no route {path}"));
    }
}

fn seconds(files: &Files, faults: &mut Faults) {
    let Ok(config) = config(files) else { return };
    let deployment = manifest(files, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let server = &pod["containers"][0];
    let grace = Duration::from_secs(number(&pod["terminationGracePeriodSeconds"]));
    faults.unless(
        config.shutdown.budget + Duration::from_secs(5) <= grace,
        "grace: 5 s more than SHUTDOWN_BUDGET",
    );
    faults.unless(server["lifecycle"].is_null(), "a preStop hook would eat from the grace");
    let worst = |probe: &str| {
        let probe = &server[format!("{probe}Probe")];
        Duration::from_secs(number(&probe["periodSeconds"]) * number(&probe["failureThreshold"]))
    };
    faults.unless(worst("readiness") < config.shutdown.lame_duck, "readiness fails after the lame duck");
    faults.unless(worst("startup") >= Duration::from_secs(30), "less than 30 s to start");
    faults.unless(worst("liveness") >= Duration::from_secs(30), "liveness kills a pod that is only busy");
    let unit = &files["deploy/systemd/server.service"];
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse().ok());
    faults.unless(stop.map(Duration::from_secs) == Some(grace), "TimeoutStopSec: not the grace of the pods");
    let socket = &files["deploy/systemd/server.socket"];
    let sockets: Vec<&str> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let expected = [config.port, config.ops_port].map(|port| port.to_string());
    faults.unless(sockets.iter().map(|port| port.rsplit(':').next().unwrap()).eq(expected.iter()), "sockets");
}

fn safety(files: &Files, faults: &mut Faults) {
    let deployment = manifest(files, "Deployment");
    faults.unless(deployment["spec"]["replicas"].is_null(), "replicas: the autoscaler owns them");
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    faults.unless(rolling["maxUnavailable"] == 0, "a rollout takes pods away before it brings new ones");
    let least = number(&manifest(files, "HorizontalPodAutoscaler")["spec"]["minReplicas"]);
    let budget = manifest(files, "PodDisruptionBudget")["spec"].clone();
    faults.unless(least >= 3 && budget["maxUnavailable"] == 1, "one pod of three may go");
    faults.unless(budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "a broken pod blocks a drain");
    let pod = &deployment["spec"]["template"]["spec"];
    let account = manifest(files, "ServiceAccount");
    faults.unless(pod["automountServiceAccountToken"] == false, "the pod mounts a token");
    faults.unless(account["automountServiceAccountToken"] == false, "the account mounts a token");
    faults.unless(pod["securityContext"]["runAsNonRoot"] == true, "root");
    faults.unless(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccomp");
    for container in ["containers", "initContainers"].map(|list| &pod[list][0]) {
        let context = &container["securityContext"];
        faults.unless(context["readOnlyRootFilesystem"] == true, "the root can be written to");
        faults.unless(context["allowPrivilegeEscalation"] == false, "privileges");
        faults.unless(context["capabilities"]["drop"][0] == "ALL", "capabilities");
    }
    let policy = manifest(files, "NetworkPolicy")["spec"]["policyTypes"].clone();
    faults.unless(
        policy == serde_json::json!(["Ingress", "Egress"]),
        "NetworkPolicy: deny by default, both ways",
    );
}

fn monitoring(files: &Files, faults: &mut Faults) {
    let rules = &files["deploy/monitoring/rules.yaml"];
    let object: Value = serde_saphyr::from_str(&files["deploy/optional/prometheusrule.yaml"]).unwrap();
    let groups: Value = serde_saphyr::from_str(rules).unwrap();
    faults.unless(object["spec"] == groups, "prometheusrule.yaml: not the groups of rules.yaml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let pages = fs::read_dir("docs/runbooks").unwrap().count();
    for alert in &alerts {
        let page = format!("docs/runbooks/{alert}.md");
        faults.unless(Path::new(&page).exists(), &format!("{page} is missing"));
        faults.unless(rules.contains(&format!("runbook: {page}\n")), &format!("{alert} names no page"));
    }
    faults.unless(pages == alerts.len(), "a page without an alert");
}

fn faults(files: &Files) -> Vec<String> {
    let mut faults = Faults::default();
    for check in [names, settings, ports, seconds, safety, monitoring] {
        check(files, &mut faults);
    }
    faults.0
}

#[test]
fn the_manifests_agree() {
    assert_eq!(faults(&files()), [""; 0]);
}

/// File of deploy/, what stands there, and a mistake in its place.
const MUTANTS: [(&str, &str, &str); 30] = [
    ("configmap.yaml", "SHUTDOWN_BUDGET: 25s", "SHUTDOWN_BUDGET: 26s"),
    ("configmap.yaml", "SHUTDOWN_LAME_DUCK: 5s", "SHUTDOWN_LAME_DUCK: 4s"),
    ("configmap.yaml", "SHUTDOWN_DRAIN: 20s", "SHUTDOWN_DRAIN: 20"),
    ("configmap.yaml", "MAX_CONNECTIONS: \"2000\"", "MAX_CONNECTIONS: \"3000\""),
    ("configmap.yaml", "\n  MAX_CONNECTIONS", "\n  MAX_CONNECTION"),
    ("configmap.yaml", "DATABASE_MAX_CONNECTIONS: \"10\"", "DATABASE_MAX_CONNECTIONS: \"11\""),
    ("horizontalpodautoscaler.yaml", "maxReplicas: 8", "maxReplicas: 9"),
    ("horizontalpodautoscaler.yaml", "minReplicas: 3", "minReplicas: 2"),
    ("deployment.yaml", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 29"),
    ("deployment.yaml", "periodSeconds: 2\n", "periodSeconds: 3\n"),
    ("deployment.yaml", "failureThreshold: 30", "failureThreshold: 10"),
    ("deployment.yaml", "path: /readyz", "path: /healthz"),
    ("deployment.yaml", "path: /healthz", "path: /health"),
    ("deployment.yaml", "containerPort: 9090", "containerPort: 9091"),
    ("deployment.yaml", "prometheus.io/port: \"9090\"", "prometheus.io/port: \"8080\""),
    ("deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1"),
    ("deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("deployment.yaml", "  revisionHistoryLimit", "  replicas: 3\n  revisionHistoryLimit"),
    ("deployment.yaml", "/etc/secrets/redis-url", "/etc/secrets/redis"),
    (
        "deployment.yaml",
        "memory: 256Mi, ephemeral-storage: 64Mi}\n            limits",
        "memory: 128Mi, ephemeral-storage: 64Mi}\n            limits",
    ),
    ("deployment.yaml", "\n          imagePullPolicy", "-old\n          imagePullPolicy"),
    (
        "deployment.yaml",
        "          args: [serve]",
        "          lifecycle: {preStop: {sleep: {seconds: 5}}}\n          args: [serve]",
    ),
    ("service.yaml", "targetPort: http", "targetPort: ops"),
    ("service.yaml", "selector: {app.kubernetes.io/name: ", "selector: {app.kubernetes.io/name: x"),
    ("poddisruptionbudget.yaml", "AlwaysAllow", "IfHealthyBudget"),
    ("serviceaccount.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    ("networkpolicy.yaml", "[Ingress, Egress]", "[Ingress]"),
    ("monitoring/rules.yaml", "14.4 * 0.001", "14.4 * 0.01"),
    ("monitoring/rules.yaml", "256 * 1024", "512 * 1024"),
    ("optional/prometheusrule.yaml", "for: 2m", "for: 20m"),
];

#[test]
fn a_mistake_in_a_manifest_is_found() {
    for (file, right, wrong) in MUTANTS {
        let mut files = files();
        let text = files.get_mut(&format!("deploy/{file}")).unwrap();
        if !text.contains(right) && !Path::new("README.md.liquid").exists() {
            // A service's own manifests may say something else.
            continue;
        }
        assert!(text.contains(right), "{file} does not say {right:?}");
        *text = text.replacen(right, wrong, 1);
        assert!(!faults(&files).is_empty(), "{file}: {wrong:?} is not noticed");
    }
}
