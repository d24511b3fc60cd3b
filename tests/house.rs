//! The rules of the house that no compiler knows: who imports whom, where SQL lives, what the README says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may use which room; every room also uses itself.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("config", &[]),
    ("telemetry", &["config"]),
    ("backing", &["config", "runtime", "telemetry"]),
    ("runtime", &["telemetry"]),
    // Of the server only the drain and the peer: a request must hear that its time is over, and tell whose it is. Of the
    // runtime that its polls are seen.
    ("http", &["backing", "config", "runtime", "server", "telemetry"]),
    ("app", &["backing", "config", "http", "runtime"]),
    ("api", &["app", "backing", "config", "http", "server", "telemetry"]),
    ("ops", &["app", "backing", "config", "http", "runtime", "server", "telemetry"]),
    ("server", &["config", "runtime", "telemetry"]),
    ("lib", &["config", "telemetry", "backing", "runtime", "http", "app", "api", "ops", "server"]),
];

/// The product's sources, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    let is_test = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        ["tests", "actors", "sweep", "proxy"].contains(&name)
            || path.components().any(|part| part.as_os_str() == "tests")
    };
    let product = files.into_iter().filter(|path| !is_test(path));
    product.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn room(path: &Path) -> String {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap().as_os_str();
    Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The rooms that a file names: `crate::room` and what stands in `use crate::{…}`, at its first level.
fn used(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            rooms.push(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut expected = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expected = true,
                c if expected && c.is_alphabetic() => {
                    rooms.push(identifier(&list[at..]));
                    expected = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path);
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == own) else {
            // main.rs and commands.rs put everything together.
            assert!(["main", "commands"].contains(&own.as_str()), "{} is in no known room", path.display());
            continue;
        };
        let foreign = used(&text).into_iter().filter(|used| *used != own && !may.contains(&used.as_str()));
        wrong.extend(foreign.map(|used| format!("{} uses {used}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_imports_sees_lists_and_paths() {
    let text = "use crate::{\n app::{self, App}, http,\n};\nuse crate::telemetry::metrics; crate::config::X";
    assert_eq!(used(text), ["app", "http", "telemetry", "config"]);
}

#[test]
fn sql_lives_in_stores_and_in_backing() {
    for (path, text) in sources() {
        let may = path.ends_with("store.rs") || room(&path) == "backing";
        let has = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "].iter().any(|word| {
            text.lines().any(|line| {
                !line.trim_start().starts_with("//")
                    && line.contains(&format!("\"{word}"))
                    && line.contains("$1")
            })
        });
        assert!(may || !has, "{} holds SQL", path.display());
        assert!(
            !text.contains("SELECT *") && !text.contains("RETURNING *"),
            "{}: name the columns",
            path.display()
        );
    }
}

#[test]
fn the_sources_do_not_name_the_package() {
    let name = env!("CARGO_PKG_NAME");
    for (path, text) in sources() {
        assert!(!text.contains(name), "{} names the package: use env!(\"CARGO_PKG_NAME\")", path.display());
    }
}

#[test]
fn the_house_is_read_in_an_evening() {
    let mut rooms = std::collections::BTreeMap::<String, usize>::new();
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
        let product = text.split("mod tests {").next().unwrap_or_default();
        let lines = product.lines().count();
        assert!(lines <= 280, "{} has {lines} lines: is it one noun?", path.display());
        let code = product.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//"));
        *rooms.entry(room(&path)).or_default() += code.count();
    }
    // That room is the service's own, and may grow.
    rooms.remove("api");
    for (room, lines) in &rooms {
        assert!(*lines <= 1200, "{room} has {lines} lines of code");
    }
    assert!(rooms.values().sum::<usize>() <= 6000, "{rooms:?}");
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let pages = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.to_str().unwrap().starts_with("./README"));
    let pages: String = pages.map(|path| fs::read_to_string(path).unwrap()).collect();
    let table = pages.split("<!-- settings -->").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.strip_prefix('`')?.strip_suffix('`')?.to_owned(), cells.next()?.to_owned()))
    });
    let mut listed: Vec<(String, String)> = rows.collect();
    let given = [("DATABASE_URL", "postgres://h/d"), ("REDIS_URL", "redis://h")];
    let config = app::config::Config::from_lookup(|name| {
        Ok(given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned()))
    });
    let told = |name: &str, value: &str| match name {
        "DATABASE_URL" | "REDIS_URL" => "required".to_owned(),
        "WORKER_THREADS" => "cores, at least 2".to_owned(),
        "REGION" => "`AWS_REGION`, else local".to_owned(),
        _ => value.to_owned(),
    };
    let effective = config.unwrap().effective;
    let mut known: Vec<_> =
        effective.iter().map(|(name, value)| ((*name).to_owned(), told(name, value))).collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}
