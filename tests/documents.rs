//! The pages: what they point at is there, and each block of commands is run by a test or says what it needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Of the project; a path that begins with none of them is taken from `src/`.
const FOLDERS: [&str; 9] =
    [".github/", "benches/", "deploy/", "docs/", "drill/", "migrations/", "scripts/", "src/", "tests/"];
/// What the reader is about to make.
const FUTURE: &str = "orders";

/// Path and text of each page.
fn pages() -> Vec<(PathBuf, String)> {
    let folders = [".", "benches", "docs", "docs/runbooks"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.to_str().unwrap().trim_end_matches(".liquid").ends_with(".md"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// A heading as GitHub makes an anchor of it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

/// Whether `link`, as it stands on the page at `path`, leads to a file, and there to a heading.
fn leads_somewhere(path: &Path, text: &str, link: &str) -> bool {
    if link.starts_with("https://") || link.starts_with("http://localhost") {
        return true;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = path.with_file_name(file);
    let there = if file.is_empty() { Ok(text.to_owned()) } else { fs::read_to_string(&target) };
    match there {
        Ok(text) => {
            heading.is_empty()
                || text
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading)
        }
        Err(_) => heading.is_empty() && target.exists(),
    }
}

/// Whether something quoted is no path of the project, or one that is there.
fn is_there(quoted: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let known = FOLDERS.iter().any(|folder| quoted.starts_with(folder));
    let is_path = quoted.chars().all(is_name) && (known || quoted.contains('/') && quoted.ends_with(".rs"));
    !is_path
        || quoted.contains(FUTURE)
        || Path::new(quoted).exists()
        || Path::new("src").join(quoted).exists()
}

/// Whether a command needs no mark: a target of the Makefile says itself what is missing.
fn is_target(line: &str, makefile: &str) -> bool {
    let target = line.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next());
    target.is_some_and(|target| makefile.contains(&format!("\n{target}: ")))
}

fn faults(path: &Path, text: &str, makefile: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unless = |holds: bool, fault: &str| {
        if !holds {
            faults.push(format!("{}: {fault}", path.display()));
        }
    };
    let (mut before, mut in_block, mut needs_mark) = ("", false, false);
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            in_block = !in_block;
            let marked = before == "<!-- walk -->" || before.starts_with("<!-- needs: ");
            needs_mark = in_block && !marked && language != "text";
        } else if in_block {
            let fault = "is not marked as run by a test, nor with what it needs";
            unless(!needs_mark || is_target(line, makefile), &format!("{line:?} {fault}"));
        } else {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            for (link, _) in links {
                unless(leads_somewhere(path, text, link), &format!("{link} leads nowhere"));
            }
            for quoted in line.split('`').skip(1).step_by(2) {
                unless(is_there(quoted), &format!("{quoted} is not there"));
            }
        }
        before = line;
    }
    faults
}

#[test]
fn the_pages_lead_somewhere_and_their_commands_are_accounted_for() {
    let makefile = fs::read_to_string("Makefile").unwrap();
    let faults: Vec<String> = pages().iter().flat_map(|(path, text)| faults(path, text, &makefile)).collect();
    assert_eq!(faults, [""; 0]);
}

const PAGE: &str = "\
[House](../tests/house.rs), [below](#a-heading), [there](operations.md#the-stop), `src/main.rs`

## A heading

<!-- needs: cluster -->
```sh
kubectl get pods
```

```
make test # here
```
";

/// What stands on that page, and a mistake in its place.
const MUTANTS: [(&str, &str); 7] = [
    ("../tests/house.rs", "../tests/no_such_file.rs"),
    ("#a-heading", "#another-heading"),
    ("operations.md#the-stop", "operations.md#no-such-heading"),
    ("`src/main.rs`", "`src/no_such_file.rs`"),
    ("<!-- needs: cluster -->\n", ""),
    ("<!-- needs: cluster -->\n", "<!-- needs: cluster -->\n\n"),
    ("make test", "make tset"),
];

#[test]
fn a_mistake_on_a_page_is_found() {
    let (path, makefile) = (Path::new("docs/page.md"), fs::read_to_string("Makefile").unwrap());
    assert_eq!(faults(path, PAGE, &makefile), [""; 0]);
    for (right, wrong) in MUTANTS {
        assert!(PAGE.contains(right), "the page does not say {right:?}");
        assert!(
            !faults(path, &PAGE.replacen(right, wrong, 1), &makefile).is_empty(),
            "{wrong:?} is not noticed"
        );
    }
}
