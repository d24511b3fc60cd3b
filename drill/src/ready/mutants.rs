//! `drill ready --mutants`: the negative control. Each item must be red on a project that has that fault, and the others not.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{ITEMS, Item, LooksAt, Subject};
use crate::{
    limits,
    mutants::{build, command, patched},
    report::{Plot, Report, Row, progress},
    stop::stage::Setup,
};

const ABOUT: &str = "Each row is a copy of the project with one fault, which the item of that number must find. A fault of the \
    sources is built, and every item that looks at the running server is asked; a fault of a file leaves the server as it is, \
    so only the items that look at files are. Red: the items that failed. Another one may only for the reason in its row.";
const COLUMNS: &[&str] = &["item", "red", "found by"];
const WIDTH: usize = 44;
const PLOT: Plot = Plot::Bars { title: "Items that found the fault", unit: "items" };

struct Mutant {
    /// In `drill/mutants/ready/`.
    patch: &'static str,
    name: &'static str,
    /// Which must find it.
    item: usize,
    looks: LooksAt,
    /// Others that find it too, and why.
    also: &'static [(usize, &'static str)],
    needs_example: bool,
}

const fn mutant(item: usize, looks: LooksAt, patch: &'static str, name: &'static str) -> Mutant {
    Mutant { patch, name, item, looks, also: &[], needs_example: false }
}

use LooksAt::{Files, Server};

const MUTANTS: [Mutant; 15] = [
    mutant(1, Files, "not-restarted.patch", "the unit says Restart=no"),
    mutant(2, Server, "a-fault-exits-0.patch", "a fault counts as a clean stop"),
    mutant(2, Server, "waits-for-stdout.patch", "the panic hook waits for a stuck stdout"),
    mutant(3, Server, "not-redacted.patch", "headers are logged, nothing is redacted"),
    mutant(4, Server, "cut-too-early.patch", "the drain ends with the lame duck"),
    mutant(5, Server, "degraded-is-unready.patch", "an outage takes every replica out"),
    Mutant {
        also: &[(3, "a method that a client made up is told in /metrics")],
        ..mutant(6, Server, "methods-as-given.patch", "a series for each method that comes in")
    },
    mutant(7, Server, "callers-trace-dropped.patch", "the caller's trace is not followed"),
    mutant(8, Server, "lag-not-measured.patch", "the lag is measured from the wrong moment"),
    Mutant {
        needs_example: true,
        ..mutant(9, Server, "no-timeout.patch", "outbound calls have no limit of their own")
    },
    Mutant {
        also: &[(11, "clippy complains of an exception from a rule that is gone")],
        ..mutant(9, Files, "clients-allowed.patch", "clippy forbids no HTTP client")
    },
    Mutant {
        also: &[(11, "clippy --locked refuses it as well")],
        ..mutant(10, Files, "lock-drifts.patch", "Cargo.lock does not fit the manifests")
    },
    mutant(10, Files, "image-unlocked.patch", "the image is built without --locked"),
    mutant(11, Files, "check-may-fail.patch", "CI goes on when make check fails"),
    mutant(12, Server, "sessions-of-one-process.patch", "sessions belong to one process"),
];

/// Runs the checklist on the project as it is, then on each mutant whose name contains `only`; whether each was caught
/// by its item. Called in the project's folder.
///
/// # Errors
///
/// When a patch no longer applies, or a mutant cannot be built.
pub async fn run(subject: &Subject, only: Option<&str>, folder: &Path) -> Result<bool> {
    let limits = [&limits::MUTANT_FOUND];
    let mut report =
        Report::new("ready-mutants", "Readiness, spoilt", WIDTH, COLUMNS, &limits).about(ABOUT).in_words();
    let has_example = fs::exists("src/api/bookmarks")?;
    for mutant in MUTANTS.iter().filter(|mutant| only.is_none_or(|only| mutant.name.contains(only))) {
        let row = match mutant.needs_example && !has_example {
            true => {
                Row { name: format!("{}: left out, for want of the example", mutant.name), ..Row::default() }
            }
            false => mutant.row(subject, folder).await?,
        };
        report.add(row);
    }
    report.finish(folder, PLOT)
}

impl Mutant {
    async fn row(&self, subject: &Subject, folder: &Path) -> Result<Row> {
        progress(&format!("building: {}", self.name));
        let spoilt = self.make(subject, folder)?;
        let mut red = Vec::new();
        for item in ITEMS.iter().filter(|item| item.notices(self.looks)) {
            progress(&format!("{}: {} {}", self.name, item.number, item.title));
            let row = item.row(&spoilt).await;
            if !row.misses.is_empty() {
                red.push((item.number, row.misses));
            }
        }
        Ok(self.judge(red))
    }

    fn make(&self, subject: &Subject, folder: &Path) -> Result<Subject> {
        let project = patched(&format!("ready/{}", self.patch), folder)?;
        // The lock file is judged by what git says of it.
        let init = command("git", &project).args(["init", "--quiet"]).status()?;
        ensure!(init.success(), "git init in {}", project.display());
        let server = if self.looks == Files { subject.setup.server.clone() } else { build(&project)? };
        Ok(Subject {
            setup: Setup { server, ..subject.setup.clone() },
            project,
            target: subject.target.clone(),
        })
    }

    fn judge(&self, red: Vec<(usize, Vec<String>)>) -> Row {
        let mut misses = Vec::new();
        let caught = red.iter().find(|(item, _)| *item == self.item);
        if caught.is_none() {
            misses.push(format!("item {} did not find it", self.item));
        }
        for (item, why) in red.iter().filter(|(item, _)| *item != self.item) {
            match self.also.iter().find(|(other, _)| other == item) {
                Some(_) => {}
                None => misses.push(format!("item {item} has no reason to be red: {}", why.join("; "))),
            }
        }
        let numbers: Vec<String> = red.iter().map(|(item, _)| item.to_string()).collect();
        let found = caught.and_then(|(_, why)| why.first()).cloned().unwrap_or_default();
        let reasons: String = self.also.iter().map(|(item, why)| format!(" ({item}: {why})")).collect();
        Row {
            name: self.name.to_owned(),
            cells: vec![self.item.to_string(), numbers.join(", "), found + &reasons],
            misses,
            point: Some((red.len() as f64, limits::MUTANT_FOUND.value())),
            detail: json!({ "patch": self.patch, "red": red.into_iter().map(|(item, why)| json!({ "item": item, "why": why })).collect::<Vec<_>>() }),
            ..Row::default()
        }
    }
}

impl Item {
    /// Whether it would see a change of that kind.
    fn notices(&self, looks: LooksAt) -> bool {
        self.looks_at == LooksAt::Both || self.looks_at == looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_caught_by_its_item_and_by_no_other_without_a_reason() {
        let sample = Mutant { also: &[(3, "a reason")], ..mutant(6, Server, "x.patch", "x") };
        let misses = |red: &[usize]| {
            let red = red.iter().map(|item| (*item, vec!["late".to_owned()])).collect();
            sample.judge(red).misses.len()
        };
        assert_eq!([misses(&[6]), misses(&[3, 6])], [0, 0]);
        assert_eq!([misses(&[]), misses(&[3]), misses(&[6, 7]), misses(&[1])], [1, 1, 1, 2]);
    }

    #[test]
    fn every_item_has_a_mutant_and_every_mutant_a_patch() {
        for item in &ITEMS {
            let mine: Vec<&Mutant> = MUTANTS.iter().filter(|mutant| mutant.item == item.number).collect();
            assert!(mine.iter().any(|mutant| !mutant.needs_example), "item {}", item.number);
            assert!(mine.iter().all(|mutant| item.notices(mutant.looks)), "item {}", item.number);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants/ready");
        let mut patches: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut named = MUTANTS.map(|mutant| mutant.patch.to_owned());
        patches.sort();
        named.sort();
        assert_eq!(patches, named);
    }
}
