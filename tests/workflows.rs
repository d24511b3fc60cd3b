//! The workflows of .github/: each step is a command that a person can run too, and nothing runs for ever.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use serde_json::Value;
use std::{fs, path::Path};

/// At most for a job: a step that hangs has no end by itself.
const MINUTES: u64 = 240;

/// Name and content of each workflow.
fn workflows() -> Vec<(String, String)> {
    let entries = fs::read_dir(".github/workflows").unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// The commands of the Makefile.
fn targets() -> Vec<String> {
    let makefile = fs::read_to_string("Makefile").unwrap();
    let named = makefile.lines().filter_map(|line| Some(line.split_once(": ## ")?.0.to_owned()));
    named.collect()
}

/// Whether the step is `make TARGET` or `scripts/NAME`, and no more: what else a shell can do is in no workflow.
fn can_be_repeated(run: &str, targets: &[String]) -> bool {
    let plain = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./".contains(c));
    let words: Vec<&str> = run.split_whitespace().collect();
    let known = match words[..] {
        ["make", target, ..] => targets.iter().any(|known| known == target),
        [script, ..] => script.starts_with("scripts/") && Path::new(script).is_file(),
        [] => false,
    };
    known && run.lines().count() == 1 && words.into_iter().all(plain)
}

/// An action of this repository, or one that is pinned by its commit, with its version beside it.
fn is_pinned(line: &str) -> bool {
    let Some((_, used)) = line.split_once("uses: ") else { return true };
    let pinned = used.split_once('@').and_then(|(_, rest)| rest.split_once(" # v"));
    let is_commit = |commit: &str| commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
    used.starts_with("./") || pinned.is_some_and(|(commit, _)| is_commit(commit))
}

fn faults(path: &str, text: &str, targets: &[String]) -> Vec<String> {
    let workflow: Value = serde_saphyr::from_str(text).unwrap();
    let mut faults = Vec::new();
    let mut unless = |holds: bool, fault: String| {
        if !holds {
            faults.push(format!("{path}: {fault}"));
        }
    };
    unless(workflow["permissions"] == serde_json::json!({}), "permissions: {} at the top".to_owned());
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        let limit = job["timeout-minutes"].as_u64().is_some_and(|minutes| minutes <= MINUTES);
        unless(limit || job["uses"].is_string(), format!("{name} has no limit of time"));
        for run in job["steps"].as_array().into_iter().flatten().filter_map(|step| step["run"].as_str()) {
            unless(can_be_repeated(run, targets), format!("{name}: {run:?} is no command of ours"));
        }
    }
    for line in text.lines() {
        unless(is_pinned(line), format!("{line:?} is not pinned by its commit"));
    }
    faults
}

#[test]
fn each_step_is_a_command_of_ours() {
    let (workflows, targets) = (workflows(), targets());
    let faults: Vec<String> =
        workflows.iter().flat_map(|(path, text)| faults(path, text, &targets)).collect();
    assert_eq!(faults, [""; 0]);
    for target in ["check", "test", "image", "cluster"] {
        let runs = format!("- run: make {target}\n");
        assert!(workflows.iter().any(|(_, text)| text.contains(&runs)), "nothing runs make {target}");
    }
}

const WORKFLOW: &str = "\
permissions: {}
jobs:
  test:
    timeout-minutes: 10
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
      - run: make test
      - run: scripts/release version
";

/// What stands in that workflow, and a mistake in its place.
const MUTANTS: [(&str, &str); 8] = [
    ("make test", "make tset"),
    ("make test", "cargo test"),
    ("make test", "make test && curl example.org"),
    ("make test", "make $WHAT"),
    ("scripts/release", "scripts/no-such-script"),
    ("permissions: {}", "permissions: {contents: write}"),
    ("    timeout-minutes: 10\n", ""),
    (" # v7.0.1", ""),
];

#[test]
fn a_mistake_in_a_workflow_is_found() {
    let targets = targets();
    assert_eq!(faults("a workflow", WORKFLOW, &targets), [""; 0]);
    for (right, wrong) in MUTANTS {
        assert!(WORKFLOW.contains(right), "the workflow does not say {right:?}");
        let text = WORKFLOW.replacen(right, wrong, 1);
        assert!(!faults("a workflow", &text, &targets).is_empty(), "{wrong:?} is not noticed");
    }
}
