use super::*;
use crate::{backing::postgres::Postgres, runtime::workers::Workers};
use sqlx::{
    migrate::MigrationType,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{net::TcpListener, task::JoinSet};

const PATIENCE: Duration = Duration::from_secs(10);

fn url(options: &PgConnectOptions) -> Secret {
    options.clone().ssl_mode(PgSslMode::Disable).to_url_lossy().to_string().into()
}

fn migrator(statements: &[(&'static str, bool)]) -> Migrator {
    let migrations = statements.iter().zip(1..).map(|(&(sql, no_tx), version)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(sql);
        Migration::new(version, "test".into(), MigrationType::Simple, sql, no_tx)
    });
    Migrator::with_migrations(migrations.collect())
}

async fn run(migrator: &Migrator, options: &PgConnectOptions) -> anyhow::Result<()> {
    apply_missing(migrator, &mut connect(&url(options), PATIENCE).await?).await
}

#[sqlx::test(migrations = false)]
async fn ten_processes_migrate_a_fresh_database_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let mut runs = JoinSet::new();
    for _ in 0..10 {
        let url = url(&options);
        runs.spawn(async move { migrate(&url, PATIENCE).await.unwrap() });
    }
    runs.join_all().await;
    let db = Postgres::new(&url(&options), 1, &Workers::none()).unwrap();
    assert_eq!(db.migrations().await.unwrap(), versions());
    assert!(!versions().is_empty());
    migrate(&url(&options), PATIENCE).await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn an_index_is_built_concurrently_by_one_of_ten(_: PgPoolOptions, options: PgConnectOptions) {
    let statements = [("CREATE TABLE t (a int)", false), ("CREATE INDEX CONCURRENTLY t_a ON t (a)", true)];
    let mut runs = JoinSet::new();
    for _ in 0..10 {
        let options = options.clone();
        runs.spawn(async move { run(&migrator(&statements), &options).await.unwrap() });
    }
    runs.join_all().await;
}

#[sqlx::test(migrations = false)]
async fn a_failed_migration_leaves_neither_half_a_schema_nor_a_lock(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let bad = migrator(&[("CREATE TABLE t (a int)", false), ("CREATE TABLE u (a int); SELECT 1 / 0", false)]);
    let error = run(&bad, &options).await.unwrap_err();
    assert!(format!("{error:#}").contains("migration 2 (test)"), "{error:#}");
    let good = migrator(&[("CREATE TABLE t (a int)", false), ("CREATE TABLE u (a int)", false)]);
    timeout(PATIENCE, run(&good, &options)).await.unwrap().unwrap();
}

#[sqlx::test(migrations = false)]
async fn a_changed_migration_is_refused_and_a_newer_schema_is_not(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let two = [("CREATE TABLE t (a int)", false), ("CREATE TABLE u (a int)", false)];
    run(&migrator(&two), &options).await.unwrap();
    run(&migrator(&two[..1]), &options).await.unwrap();
    let changed = [("CREATE TABLE t (b int)", false)];
    assert!(run(&migrator(&changed), &options).await.is_err());
}

#[sqlx::test(migrations = false)]
async fn tables_in_use_are_tried_again(_: PgPoolOptions, options: PgConnectOptions) {
    let two = migrator(&[("CREATE TABLE t (a int)", false), ("ALTER TABLE t ADD b int", false)]);
    run(&migrator(&[("CREATE TABLE t (a int)", false)]), &options).await.unwrap();
    let mut holder = connect(&url(&options), PATIENCE).await.unwrap();
    let mut transaction = holder.begin().await.unwrap();
    sqlx::query("SELECT * FROM t").execute(&mut *transaction).await.unwrap();
    let hold = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        transaction.commit().await.unwrap();
    };
    let start = Instant::now();
    let (migrated, ()) = tokio::join!(run(&two, &options), hold);
    migrated.unwrap();
    assert!(start.elapsed() > Duration::from_secs(3) && start.elapsed() < Duration::from_secs(20));
}

#[sqlx::test(migrations = false)]
async fn a_run_may_be_dropped_half_way(_: PgPoolOptions, options: PgConnectOptions) {
    let slow = migrator(&[("CREATE TABLE t (a int); SELECT pg_sleep(2)", false)]);
    timeout(Duration::from_millis(500), run(&slow, &options)).await.unwrap_err();
    run(&migrator(&[("CREATE TABLE t (a int)", false)]), &options).await.unwrap();
}

#[tokio::test]
async fn a_database_that_does_not_come_is_waited_for_so_long_only() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Secret::from(format!("postgres://x:secret@{}/x", listener.local_addr().unwrap()));
    drop(listener);
    let start = Instant::now();
    let error = migrate(&url, Duration::from_secs(2)).await.unwrap_err();
    assert!(start.elapsed() > Duration::from_secs(1) && start.elapsed() < Duration::from_secs(10));
    assert!(!format!("{error:?}").contains("secret"));
    let error = migrate(&Secret::from("postgres://x:secret@[".to_owned()), PATIENCE).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret"));
}

#[sqlx::test(migrations = false)]
async fn a_database_that_comes_late_is_waited_for(_: PgPoolOptions, options: PgConnectOptions) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let late = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut client, _) = listener.accept().await.unwrap();
        let upstream = (options.get_host(), options.get_port());
        let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
    };
    let options = options.clone().host("127.0.0.1").port(address.port());
    let url = url(&options);
    let (migrated, ()) = tokio::join!(migrate(&url, PATIENCE), late);
    migrated.unwrap();
}

#[sqlx::test(migrations = false)]
async fn nothing_is_migrated_through_a_pooler(_: PgPoolOptions, options: PgConnectOptions) {
    // To the server it looks like this: a session that asks for nothing.
    let mut pooled = options.connect().await.unwrap();
    let error = apply_missing(&EMBEDDED, &mut pooled).await.unwrap_err();
    assert!(error.to_string().contains("past the pooler"), "{error:#}");
    let db = Postgres::new(&url(&options), 1, &Workers::none()).unwrap();
    assert_eq!(db.migrations().await.unwrap(), [0; 0]);
}
