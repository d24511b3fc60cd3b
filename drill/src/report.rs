//! What a drill found: a table while it runs, then a JSON file and one self-contained page with a plot.

mod page;
mod plot;
pub mod timeline;

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::limits::Limit;
use timeline::Timeline;

/// A drill's results as they come in.
pub struct Report {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    columns: &'static [&'static str],
    start: Instant,
    rows: Vec<Row>,
    notes: Vec<Row>,
    limits: Vec<&'static Limit>,
    /// The cells are words, not numbers.
    words: bool,
    width: usize,
}

/// One line of the table. It passes when nothing was missed.
#[derive(Debug, Default)]
pub struct Row {
    pub name: String,
    /// As many as the report has columns.
    pub cells: Vec<String>,
    /// What is wrong, in words.
    pub misses: Vec<String>,
    /// It could not be measured, which is no better than a miss: `misses` says why.
    pub unknown: bool,
    /// For the plot: the value that matters most, and its limit.
    pub point: Option<(f64, f64)>,
    /// Everything else that is worth keeping.
    pub detail: Value,
    /// What happened when, for a picture of its own.
    pub over_time: Option<Timeline>,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match (self.misses.is_empty(), self.unknown) {
            (true, _) => "pass",
            (false, false) => "fail",
            (false, true) => "unknown",
        }
    }
}

/// How the points are drawn.
#[derive(Clone, Copy, Debug)]
pub enum Plot {
    /// One bar for each row, with its name and its limit.
    Bars { title: &'static str, unit: &'static str },
    /// One dot for each row, for rows that are many and alike.
    Dots { title: &'static str, unit: &'static str },
}

impl Report {
    /// Prints the title and the head of the table. `width` is that of the first column.
    pub fn new(
        name: &'static str,
        title: &'static str,
        width: usize,
        columns: &'static [&'static str],
        limits: &[&'static Limit],
    ) -> Self {
        println!("{title}\n");
        let head: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        println!("{}", line(width, "", "", &head));
        let (about, rows, notes, limits) = ("", Vec::new(), Vec::new(), limits.to_vec());
        Self { name, title, about, columns, start: Instant::now(), rows, notes, limits, words: false, width }
    }

    /// What the page says of itself: how it was measured, and what the columns mean.
    #[must_use]
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// For cells that are words, not numbers.
    #[must_use]
    pub fn in_words(self) -> Self {
        Self { words: true, ..self }
    }

    /// Prints the row, and what is wrong with it below.
    pub fn add(&mut self, row: Row) {
        clear();
        let verdict = row.verdict();
        let verdict = if row.misses.is_empty() { verdict.to_owned() } else { verdict.to_uppercase() };
        println!("{}", line(self.width, &verdict, &row.name, &row.cells));
        for miss in &row.misses {
            println!("         {miss}");
        }
        self.rows.push(row);
    }

    /// Keeps the row for the picture and the JSON only: one of many that are summed up in another.
    pub fn note(&mut self, row: Row) {
        self.notes.push(row);
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().chain(&self.notes)
    }

    /// Whether everything was within its limits so far.
    pub fn passes(&self) -> bool {
        self.all().all(|row| row.misses.is_empty())
    }

    /// Writes `NAME.json` and `NAME.html` into `folder`, prints the verdict, and returns it.
    ///
    /// # Errors
    ///
    /// When there is nothing to tell, or a file cannot be written.
    pub fn finish(self, folder: &Path, plot: Plot) -> Result<bool> {
        clear();
        ensure!(self.all().next().is_some(), "nothing was looked at: no name contains what --only wants");
        let passes = self.passes();
        let page = self.write(folder, plot)?;
        let missed = self.rows.iter().filter(|row| !row.misses.is_empty()).count();
        let verdict = match missed {
            0 => "everything is within its limits".to_owned(),
            _ => format!("{missed} of {} missed a limit", self.rows.len()),
        };
        println!("\n{verdict}, in {:.0} s; {}", self.start.elapsed().as_secs_f64(), page.display());
        Ok(passes)
    }

    fn write(&self, folder: &Path, plot: Plot) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let page = folder.join(self.name).with_extension("html");
        let files = [(folder.join(self.name).with_extension("json"), self.to_json().to_string())];
        for (path, text) in files.into_iter().chain([(page.clone(), page::html(self, plot))]) {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(page)
    }

    fn to_json(&self) -> Value {
        let rows = self.all().map(|row| {
            let cells =
                self.columns.iter().zip(&row.cells).map(|(&column, cell)| (column.to_owned(), json!(cell)));
            json!({
                "name": row.name,
                "verdict": row.verdict(),
                "passes": row.misses.is_empty(),
                "misses": row.misses,
                "cells": Value::Object(cells.collect()),
                "detail": row.detail,
                "over_time": row.over_time.as_ref().map(Timeline::to_json),
            })
        });
        let limits = self.limits.iter().map(|limit| {
            json!({ "name": limit.name, "value": limit.value(), "unit": limit.unit, "source": limit.source })
        });
        json!({
            "drill": self.name,
            "passes": self.passes(),
            "took_s": self.start.elapsed().as_secs_f64(),
            "rows": rows.collect::<Vec<_>>(),
            "limits": limits.collect::<Vec<_>>(),
        })
    }
}

/// Shows what is being done, on a terminal, until the next line is printed.
pub fn progress(what: &str) {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K… {what}");
        std::io::stdout().flush().ok();
    }
}

fn clear() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
}

fn line(width: usize, verdict: &str, name: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!("  {cell:>9}")).collect();
    format!("{verdict:<7}  {name:<width$}{cells}")
}

#[cfg(test)]
mod tests;
