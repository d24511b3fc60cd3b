//! The README's first walk, typed as it stands there.
use crate::service::server;
use drill::upstream::Stub;
use sqlx::PgPool;
use std::process::Stdio;
use tokio::process::Command;

#[sqlx::test]
async fn the_walk_of_the_readme_works_as_written(pool: PgPool) {
    let upstream = Stub::start().await.unwrap();
    let server = server(&pool, "walk").env("PREVIEW_URL", upstream.url()).start().await.unwrap();
    server.ready().await.unwrap();

    let readme = std::fs::read_to_string("README.md").unwrap();
    let walk = readme.split("<!-- walk -->").nth(1).expect("the README marks its walk");
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
    assert_eq!(statuses, ["201", "201", "201", "200", "200", "412", "204", "401"], "{stdout}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM bookmarks").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 1, "one key, one bookmark");
}

/// A folder for the walk's cookie jar.
fn tempdir() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("walk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
