//! Item 11: the workflows run what audits and type-checks, and that passes here.

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Finding, Subject,
    project::{last_words, run},
    workflows::{self, Step},
};
use crate::report::progress;

/// What must run, and on which event: each change, and each day, for what becomes known without one.
const WANTED: [(&str, &str); 5] = [
    ("make check", "push"),
    ("make check", "pull_request"),
    ("make test", "push"),
    ("make test", "pull_request"),
    ("make deny", "schedule"),
];
/// What `make check` is made of.
const PARTS: [&str; 4] = ["cargo clippy", "--locked", "-D warnings", "scripts/deny"];

pub async fn check(subject: &Subject) -> Result<Finding> {
    let mut finding = Finding::default();
    finding.misses.extend(not_run(&workflows::read(&subject.project.join(".github/workflows"))?));
    let recipe = run(subject, "make", &["--dry-run", "check"]).await?;
    let recipe = String::from_utf8_lossy(&recipe.stdout).into_owned();
    for part in PARTS {
        finding.unless(recipe.contains(part), format!("`make check` has no {part}"));
    }
    let start = Instant::now();
    passes(subject, &mut finding, "cargo", &["fmt", "--all", "--check"]).await?;
    // As `make check` has it, without the tests, and for a release, so that it need not build everything again.
    let clippy = ["clippy", "--release", "--locked", "--lib", "--bins", "--", "-D", "warnings"];
    passes(subject, &mut finding, "cargo", &clippy).await?;
    let deny = subject.project.join("scripts/deny");
    let said = passes(subject, &mut finding, &deny.display().to_string(), &[]).await?;
    let advisories =
        if said.contains("not checked") { "the advisories' database is out of reach" } else { "no advisory" };
    finding.evidence = format!(
        "workflows run make check and make test on each change, make deny daily; fmt, clippy and deny pass here in {:.0} s; {advisories}",
        start.elapsed().as_secs_f64()
    );
    Ok(finding)
}

/// Runs the command, which must pass; what it had to say.
async fn passes(
    subject: &Subject,
    finding: &mut Finding,
    program: &str,
    arguments: &[&str],
) -> Result<String> {
    let command = format!("{program} {}", arguments.join(" "));
    progress(&format!("11 of 12: {command}"));
    let done = run(subject, program, arguments).await?;
    finding.unless(done.status.success(), format!("{}: {}", command.trim(), last_words(&done)));
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

fn not_run(steps: &[Step]) -> impl Iterator<Item = String> {
    let runs = |command: &str, event: &str| {
        steps.iter().any(|step| step.run == command && step.events.iter().any(|on| on == event))
    };
    let missing = WANTED.into_iter().filter(move |(command, event)| !runs(command, event));
    missing.map(|(command, event)| {
        format!("no workflow runs `{command}` on {event}, or its failure does not count")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_run_on_an_event_is_named() {
        let step = |run: &str, events: &[&str]| Step {
            run: run.to_owned(),
            events: events.iter().map(|&event| event.to_owned()).collect(),
        };
        let change = ["push", "pull_request"];
        let mut steps =
            vec![step("make check", &change), step("make test", &change), step("make deny", &["schedule"])];
        assert_eq!(not_run(&steps).count(), 0);
        steps[1].events.pop();
        let missing: Vec<String> = not_run(&steps).collect();
        assert!(missing.len() == 1 && missing[0].contains("`make test` on pull_request"), "{missing:?}");
    }
}
