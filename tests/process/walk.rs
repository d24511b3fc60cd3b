//! The walks of the README and of docs/, typed as they stand there. {%- capture file %}{% raw %}
use crate::service::server;
use drill::upstream::Stub; // example
use sqlx::PgPool;
use std::{fs, process::Stdio};
use tokio::process::Command;

/// The shell blocks under the mark.
fn walks() -> Vec<String> {
    let entries = [".", "docs"].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.to_str().unwrap().trim_end_matches(".liquid").ends_with(".md"));
    let pages = pages.map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    let marked = pages.split("<!-- walk -->\n").skip(1);
    let blocks = marked.map(|rest| rest.strip_prefix("```sh\n").expect("a shell block under the mark"));
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[sqlx::test]
async fn the_walks_of_the_pages_work_as_written(pool: PgPool) {
    let server = server(&pool, "walk");
    let upstream = Stub::start().await.unwrap(); // example
    let server = server.env("PREVIEW_URL", upstream.url()); // example
    let server = server.start().await.unwrap();
    server.ready().await.unwrap();
    let walks = walks();
    assert!(!walks.is_empty(), "no page has a walk");
    for script in walks {
        let script = script
            .replace("http://localhost:8080", &server.url(""))
            .replace("http://localhost:9090", &server.ops_url(""));
        let mut shell = Command::new("bash");
        let folder = tempfile::tempdir().unwrap();
        shell
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = shell.output().await.unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}\n{stderr}");

        let statuses: Vec<&str> =
            stdout.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
        // Each line says what it gets: `# 201`.
        let told = script.lines().filter_map(|line| line.split(" # ").nth(1)?.get(..3));
        let expected: Vec<&str> = told.filter(|word| word.parse::<u16>().is_ok()).collect();
        assert!(expected.len() >= 4, "{script}");
        assert_eq!(statuses, expected, "{stdout}");
    }
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
