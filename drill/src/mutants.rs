//! `drill mutants`: the negative control. Spoils a copy of the sources by a patch, builds it, and expects the drill to notice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    chaos, limits,
    report::{Plot, Report, progress},
    stop::{self, stage::Setup},
};

/// The patches, in `drill/mutants/`, and what is wrong with a server that has one.
const STOP: [(&str, &str); 2] = [
    ("no-quiet-window.patch", "no quiet window"),
    ("plain-graceful-shutdown.patch", "plain graceful shutdown"),
];

/// The same, with the case that finds out.
const CHAOS: [(&str, &str, &str); 2] = [
    ("abandoned-queries-go-on.patch", "abandoned connections kept", "whose clients have gone"),
    ("silent-redis-kept.patch", "silent Redis kept", "Redis: open connection freezes"),
];

/// Runs the load of the stop matrix against each mutant; whether every one was caught. Called in the project's folder.
///
/// # Errors
///
/// When a patch no longer applies, or a mutant cannot be built or started.
pub async fn stop_matrix(setup: &Setup, folder: &Path) -> Result<bool> {
    let limits = [&limits::MUTANT_LOST];
    let mut report = Report::new("stop-matrix-mutants", "The stop, spoilt", 30, stop::COLUMNS, &limits);
    for (patch, name) in STOP {
        progress(&format!("building: {name}"));
        let server = build(&patched(patch, folder)?)?;
        stop::control(&Setup { server, ..setup.clone() }, name, &mut report).await?;
    }
    report.finish(folder, Plot::Bars { title: "Requests without an answer: some must be", unit: "requests" })
}

/// Runs the case that each mutant must fail; whether every one was caught. Called in the project's folder.
///
/// # Errors
///
/// As [`stop_matrix`].
pub async fn chaos(setup: &Setup, folder: &Path) -> Result<bool> {
    let limits = [&limits::MUTANT_CAUGHT];
    let mut report = Report::new("chaos-mutants", "Chaos, spoilt", 76, chaos::CONTROL_COLUMNS, &limits);
    for (patch, name, case) in CHAOS {
        progress(&format!("building: {name}"));
        let server = build(&patched(patch, folder)?)?;
        let spoilt = Setup { server, ..setup.clone() };
        chaos::control(setup, &spoilt, name, case, &mut report).await?;
    }
    report.finish(folder, Plot::Bars { title: "Limits missed: some must be", unit: "misses" })
}

/// A copy of the tree with this patch of `drill/mutants/`.
pub fn patched(patch: &str, folder: &Path) -> Result<PathBuf> {
    let patch =
        fs::canonicalize(Path::new("drill/mutants").join(patch)).context("in the project's folder?")?;
    fs::create_dir_all(folder)?;
    let folder = fs::canonicalize(folder)?;
    let copy = folder.join("mutant");
    copy_tree(&copy)?;
    // Under a repository that ignores the copy, `git apply` would skip every file and succeed.
    let apply =
        command("git", &copy).env("GIT_CEILING_DIRECTORIES", &folder).arg("apply").arg(&patch).output()?;
    let said = String::from_utf8_lossy(&apply.stderr);
    ensure!(apply.status.success(), "{} no longer applies: {said}", patch.display());
    Ok(copy)
}

/// A fault is one whatever the linker does: what is shipped takes two minutes to build, this takes a few the first time,
/// and then some seconds.
const QUICK: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
];

/// Builds a patched copy; the path of its server.
pub fn build(copy: &Path) -> Result<PathBuf> {
    let target = copy.with_file_name("mutant-target");
    let mut build = command("cargo", copy);
    build.args(["build", "--release", "--locked", "--bin", "server", "--target-dir"]).arg(&target);
    let build = build.envs(QUICK).output()?;
    ensure!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    Ok(target.join("release/server"))
}

/// Every file that git knows or would add, in a new folder.
fn copy_tree(copy: &Path) -> Result<()> {
    let mut list = command("git", Path::new("."));
    let list = list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output()?;
    let list = String::from_utf8(list.stdout)?;
    ensure!(list.contains("Cargo.toml"), "not in a git repository");
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    for file in list.split('\0').filter(|file| Path::new(file).is_file()) {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(file, &to).with_context(|| format!("copying {file}"))?;
    }
    Ok(())
}

/// A command that has nothing to read.
pub fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    command
}
