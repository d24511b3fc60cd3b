//! Credentials that change while the server runs.
use crate::service::{client, redis_command, redis_url, server, sign_up};
use serde_json::Value;
use sqlx::{ConnectOptions, PgPool};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files that an orchestrator writes secrets to.
struct Secrets {
    folder: PathBuf,
    database: String,
    redis: String,
}

impl Secrets {
    fn of(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let folder = std::env::temp_dir().join(options.get_database().expect("each test has one"));
        fs::create_dir_all(&folder).unwrap();
        Self { folder, database: options.to_url_lossy().to_string(), redis: redis_url() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes addresses with this user's credentials.
    fn renew(&self, user: &str) {
        replace(&self.file("database"), &with_user(&self.database, user));
        replace(&self.file("redis"), &with_user(&self.redis, user));
    }
}

fn with_user(url: &str, user: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some("secret")).unwrap();
    format!("{url}\n")
}

/// As orchestrators do it: a reader sees the old or the new.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

async fn sql(pool: &PgPool, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
}

#[sqlx::test]
async fn new_credentials_are_used_without_a_restart(pool: PgPool) {
    let secrets = Secrets::of(&pool);
    let users = ["old", "new"].map(|name| format!("{name}_{}", std::process::id()));
    let [old, new] = users.each_ref().map(String::as_str);
    for user in [old, new] {
        sql(&pool, format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'secret'")).await;
        redis_command(&["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]).await;
    }
    secrets.renew(old);
    let builder = server(&pool, "rotation").env("DATABASE_URL", "").env("REDIS_URL", "");
    let builder = builder.env("DATABASE_URL_FILE", secrets.file("database").display());
    let server = builder.env("REDIS_URL_FILE", secrets.file("redis").display()).start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;

    secrets.renew(new);
    let renewed = |dependency: &'static str| {
        move |line: &Value| line["dependency"] == dependency && line["msg"] == "credentials renewed"
    };
    server.line(renewed("postgres")).await.unwrap();
    server.line(renewed("redis")).await.unwrap();
    redis_command(&["ACL", "DELUSER", old]).await;
    sql(&pool, format!("ALTER ROLE {old} NOLOGIN")).await;
    // A file that makes no sense changes nothing.
    replace(&secrets.file("database"), "to be decided");
    server.line(|line| line["level"] == 50 && line["dependency"] == "postgres").await.unwrap();

    let url = server.url("/v1/session");
    assert_eq!(client().get(url).header("cookie", &cookie).send().await.unwrap().status(), 200);
    sign_up(&server, "bob@example.com").await;
    let sessions = "SELECT array_agg(DISTINCT usename::text) FROM pg_stat_activity
        WHERE datname = current_database() AND usename LIKE '%\\_' || $1";
    let process = std::process::id().to_string();
    let connected: Vec<String> = sqlx::query_scalar(sessions).bind(process).fetch_one(&pool).await.unwrap();
    assert_eq!(connected, [new]);

    drop(server);
    for user in [old, new] {
        sql(&pool, format!("DROP ROLE {user}")).await;
    }
    redis_command(&["ACL", "DELUSER", new]).await;
    fs::remove_dir_all(&secrets.folder).unwrap();
}
