//! Item 10: what is built is what was locked.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::{Finding, Subject};

/// Commands of cargo that read the lock file, and would rewrite it.
const LOCKING: [&str; 7] = ["build", "check", "clippy", "test", "bench", "install", "run"];

/// Nothing drifts: the lock file is kept, fits the manifests, and everybody who builds goes by it.
pub async fn lockfile(subject: &Subject) -> Result<Finding> {
    let mut finding = Finding::default();
    // Resolves all that a build does, and builds nothing.
    let resolve = ["tree", "--workspace", "--locked", "--offline"];
    let resolved = run(subject, "cargo", &resolve).await?;
    finding
        .unless(resolved.status.success(), format!("cargo {}: {}", resolve.join(" "), last_words(&resolved)));
    let kept = kept(subject, &mut finding).await?;
    let mut places = 0;
    for file in builders(&subject.project)? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        places += commands(&text).count();
        let name = file.strip_prefix(&subject.project).unwrap_or(&file).display();
        finding.misses.extend(unlocked(&text).map(|line| format!("{name}: no --locked: {line}")));
    }
    finding.unless(places > 0, "no file builds anything");
    finding.evidence = format!(
        "built with --locked, and nothing has drifted since; Cargo.lock {kept}; --locked in all {places} places that build"
    );
    Ok(finding)
}

/// What git says of the lock file.
async fn kept(subject: &Subject, finding: &mut Finding) -> Result<&'static str> {
    let git = async |arguments: &[&str]| run(subject, "git", arguments).await;
    ensure!(git(&["rev-parse", "--git-dir"]).await?.status.success(), "not in a git repository");
    let is_ignored = git(&["check-ignore", "--quiet", "Cargo.lock"]).await?.status.success();
    finding.unless(!is_ignored, "git ignores Cargo.lock");
    if !git(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?.status.success() {
        return Ok("is there for the first commit");
    }
    let is_tracked = git(&["ls-files", "--error-unmatch", "Cargo.lock"]).await?.status.success();
    finding.unless(is_tracked, "Cargo.lock is not in git: git add Cargo.lock");
    let is_same = git(&["diff", "--quiet", "HEAD", "--", "Cargo.lock"]).await?.status.success();
    finding.unless(is_same, "Cargo.lock is not as committed: git diff Cargo.lock");
    Ok("is as committed")
}

/// The files that say how it is built: for a release, by hand, in CI.
fn builders(project: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![project.join("Dockerfile"), project.join("Makefile")];
    for folder in ["scripts", ".github/workflows"] {
        let entries = std::fs::read_dir(project.join(folder)).with_context(|| folder.to_owned())?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    files.sort();
    Ok(files)
}

/// The lines that are about one of the commands.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| {
        let words: Vec<&str> =
            line.split_whitespace().map(|word| word.trim_start_matches(['@', '(', '\'', '"'])).collect();
        words.windows(3).any(|words| matches!(words, ["cargo", "auditable", "build"]))
            || words.windows(2).any(|words| words[0] == "cargo" && LOCKING.contains(&words[1]))
    })
}

fn unlocked(text: &str) -> impl Iterator<Item = &str> {
    commands(text).filter(|line| !line.contains("--locked"))
}

/// Runs a command in the project's folder. What it builds goes where the server was built.
pub async fn run(subject: &Subject, program: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&subject.project).env("CARGO_TARGET_DIR", &subject.target);
    let command = command.stdin(Stdio::null()).kill_on_drop(true).output();
    command.await.with_context(|| format!("{program} cannot be started"))
}

/// What a command said last, for one line.
pub fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_lock_is_found_wherever_it_hides() {
        let found = |text: &str| unlocked(text).count();
        let sound = "# cargo build\nRUN cargo auditable build --locked --release\n\t@RUST_LOG=x cargo test --locked\n\tcargo fmt\n";
        assert_eq!((commands(sound).count(), found(sound)), (2, 0));
        for line in [
            "cargo install cargo-deny",
            "RUN x && cargo auditable build",
            "\t@cargo bench",
            "(cargo build --release)",
        ] {
            assert_eq!(found(line), 1, "{line}");
        }
    }
}
