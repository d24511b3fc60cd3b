//! The README's first walk, typed as it stands there. {%- capture file %}{% raw %}
use crate::service::server;
use drill::upstream::Stub; // example
use sqlx::PgPool;
use std::process::Stdio;
use tokio::process::Command;

#[sqlx::test]
async fn the_walk_of_the_readme_works_as_written(pool: PgPool) {
    let server = server(&pool, "walk");
    let upstream = Stub::start().await.unwrap(); // example
    let server = server.env("PREVIEW_URL", upstream.url()); // example
    let server = server.start().await.unwrap();
    server.ready().await.unwrap();

    let pages = std::fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.to_str().unwrap().starts_with("./README"));
    let pages: String = pages.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let walk = pages.split("<!-- walk -->").nth(1).expect("the README marks its walk");
    let script =
        walk.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a shell block");
    let script = script.replace("http://localhost:8080", &format!("http://localhost:{}", server.port()));
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(tempdir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = shell.output().await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");

    let statuses: Vec<&str> =
        stdout.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
    // Each line says what it gets: `# 201`.
    let told = script.lines().filter_map(|line| line.split(" # ").nth(1)?.get(..3));
    let expected: Vec<&str> = told.filter(|word| word.parse::<u16>().is_ok()).collect();
    assert!(expected.len() >= 4, "{script}");
    assert_eq!(statuses, expected, "{stdout}");
}

/// A folder for the walk's cookie jar.
fn tempdir() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("walk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
