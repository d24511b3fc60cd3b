//! What the workflows run, and when.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A step that runs whenever its workflow does, and whose failure is the workflow's.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// `push`, `schedule`, …
    pub events: Vec<String>,
    pub run: String,
}

pub fn read(folder: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            let text = std::fs::read_to_string(&path)?;
            steps.extend(parse(&text).with_context(|| path.display().to_string())?);
        }
    }
    Ok(steps)
}

fn parse(text: &str) -> Result<Vec<Step>> {
    let workflow: Value = serde_saphyr::from_str(text)?;
    // An older YAML takes the word for a boolean.
    let on = [&workflow["on"], &workflow["true"]].into_iter().find(|on| !on.is_null());
    let events = names(on.context("a workflow says what it is run on")?);
    let jobs = workflow["jobs"].as_object().context("a workflow has jobs")?;
    let binding = |part: &&Value| {
        part["if"].is_null() && matches!(part["continue-on-error"], Value::Null | Value::Bool(false))
    };
    let steps =
        jobs.values().filter(binding).filter_map(|job| job["steps"].as_array()).flatten().filter(binding);
    let runs = steps.filter_map(|step| step["run"].as_str());
    Ok(runs.map(|run| Step { events: events.clone(), run: run.trim().to_owned() }).collect())
}

/// `push`, `[push, pull_request]` or a map of these.
fn names(on: &Value) -> Vec<String> {
    match on {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKFLOW: &str = "\
on:
  push: {branches: [main]}
  pull_request:
jobs:
  check:
    steps:
      - uses: actions/checkout@v7
      - run: make check
";

    #[test]
    fn a_step_counts_when_nothing_keeps_it_from_running_and_from_failing() {
        let events = |text: &str| parse(text).unwrap().into_iter().next().map(|step| (step.events, step.run));
        let both = ["pull_request", "push"].map(str::to_owned).to_vec();
        let (mut found, run) = events(WORKFLOW).unwrap();
        found.sort();
        assert_eq!((found, &*run), (both, "make check"));
        for (right, wrong) in [
            ("make check\n", "make check\n        continue-on-error: true\n"),
            ("make check\n", "make check\n        if: false\n"),
            ("    steps", "    continue-on-error: true\n    steps"),
            ("- run: make check", "# - run: make check"),
        ] {
            assert_eq!(events(&WORKFLOW.replacen(right, wrong, 1)), None, "{wrong}");
        }
        assert!(parse("jobs: {}").is_err());
    }
}
