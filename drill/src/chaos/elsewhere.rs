//! Faults that tests of the sources show better than a drill of the binary can: each with the tests that do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::report::{Report, Row};

const SHOWN: &[(&str, &[&str])] = &[
    ("a handler panics", &["a_panic_is_a_500_or_the_end_of_its_answer_and_nobody_else_notices"]),
    ("a background task panics", &["a_panic_of_a_task_that_must_not_end_drains_the_server_and_fails_it"]),
    (
        "ten processes migrate at once, one index concurrently",
        &["ten_processes_migrate_a_fresh_database_at_once", "an_index_is_built_concurrently_by_one_of_ten"],
    ),
    ("a migration fails", &["a_failed_migration_leaves_neither_half_a_schema_nor_a_lock"]),
];

/// A row for each, which misses when a test of that name is not in the sources. Called in the project's folder.
pub fn rows(report: &mut Report) {
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read(Path::new(folder), &mut sources);
    }
    for (fault, tests) in SHOWN {
        let missing = tests.iter().filter(|test| !sources.contains(&format!("fn {test}(")));
        let misses = missing.map(|test| format!("there is no test {test}")).collect();
        let name = format!("{fault}: shown by the test {}", tests.join(" and "));
        report.add(Row { name, misses, ..Row::default() });
    }
}

fn read(folder: &Path, sources: &mut String) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}
