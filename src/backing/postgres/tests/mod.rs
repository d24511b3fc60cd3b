mod faults;

use super::{link::TRUSTED, *};
use crate::telemetry::request::Part;
use crate::{
    backing::{migrate, proxy::Proxy},
    telemetry::request::Request,
};
use axum::{Router, body::Body, extract::State, http, routing::post};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::{net::Ipv4Addr, sync::Arc};
use tokio::{net::TcpListener, time::sleep};
use tower::ServiceExt;
use uuid::Uuid;

/// A pool of its own for `max` connections to the test's database.
fn postgres(options: &PgConnectOptions, max: usize) -> Postgres {
    Postgres::new(&url(options), max, &Workers::none()).unwrap()
}

fn url(options: &PgConnectOptions) -> Secret {
    options.clone().ssl_mode(PgSslMode::Disable).to_url_lossy().to_string().into()
}

async fn proxied(options: &PgConnectOptions, max: usize) -> (Proxy, Postgres) {
    let proxy = Proxy::to(format!("{}:{}", options.get_host(), options.get_port())).await;
    let options = options.clone().host("127.0.0.1").port(proxy.address.port());
    (proxy, postgres(&options, max))
}

async fn one(db: &Postgres) -> Result<i32, Error> {
    db.run("SELECT", async |conn| sqlx::query_scalar("SELECT 1").fetch_one(conn).await).await
}

/// The server process behind the connection: another number means another connection.
async fn backend(db: &Postgres) -> i32 {
    let sql = "SELECT pg_backend_pid()";
    db.run("SELECT", async |conn| sqlx::query_scalar(sql).fetch_one(conn).await).await.unwrap()
}

async fn execute(db: &Postgres, sql: &'static str) -> Result<(), Error> {
    db.run("test", async |conn| sqlx::query(sql).execute(conn).await.map(drop)).await
}

async fn hold(db: &Postgres, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let db = db.clone();
        tasks.spawn(async move { execute(&db, "SELECT pg_sleep(0.05)").await.unwrap() });
    }
    tasks.join_all().await;
    assert_eq!(db.connections(), (0, count));
}

fn hurried(time: Duration) -> Arc<Request> {
    let deadline = std::time::Instant::now() + time;
    Request::new("test".into(), Ipv4Addr::LOCALHOST.into(), deadline, Default::default())
}

/// How often the client has waited for the server: once per `Sync` or simple query.
fn round_trips(mut sent: &[u8]) -> usize {
    let mut count = 0;
    while let [kind, a, b, c, d, ..] = *sent {
        count += usize::from(matches!(kind, b'S' | b'Q'));
        sent = &sent[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    count
}

#[sqlx::test]
async fn a_query_is_one_round_trip(_: PgPoolOptions, options: PgConnectOptions) {
    let (proxy, db) = proxied(&options, 1).await;
    one(&db).await.unwrap();
    proxy.take_sent();
    for _ in 0..10 {
        one(&db).await.unwrap();
    }
    assert_eq!(round_trips(&proxy.take_sent()), 10);
    assert_eq!(proxy.accepted(), 1);
}

#[sqlx::test]
async fn only_an_idle_connection_is_asked_for_a_sign_of_life(_: PgPoolOptions, options: PgConnectOptions) {
    let (proxy, db) = proxied(&options, 1).await;
    one(&db).await.unwrap();
    proxy.take_sent();
    sleep(TRUSTED).await;
    one(&db).await.unwrap();
    assert_eq!(round_trips(&proxy.take_sent()), 2);
}

#[sqlx::test]
async fn an_abandoned_query_frees_its_place_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let before = backend(&db).await;
    timeout(Duration::from_millis(50), execute(&db, "SELECT pg_sleep(4)")).await.unwrap_err();
    let start = Instant::now();
    assert_ne!(backend(&db).await, before);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[sqlx::test]
async fn requests_share_the_connections_allowed(_: PgPoolOptions, options: PgConnectOptions) {
    let (proxy, db) = proxied(&options, 3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let db = db.clone();
        tasks.spawn(async move { execute(&db, "SELECT pg_sleep(0.01)").await.unwrap() });
    }
    tasks.join_all().await;
    assert_eq!((proxy.accepted(), db.connections()), (3, (0, 3)));
}

#[sqlx::test]
async fn a_busy_pool_is_waited_for_one_second_at_most(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    one(&db).await.unwrap();
    let slow = execute(&db, "SELECT pg_sleep(2)");
    let start = Instant::now();
    let (slow, (error, waited)) = tokio::join!(slow, async { (one(&db).await, start.elapsed()) });
    slow.unwrap();
    assert!(matches!(error, Err(Error::Unavailable(_))), "{error:?}");
    assert!(waited >= ACQUIRE && waited < ACQUIRE * 3 / 2, "{waited:?}");
}

#[sqlx::test]
async fn answers_and_outages_are_told_apart(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 2);
    let before = backend(&db).await;
    let insert = "INSERT INTO accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'a@b.c', '$')";
    execute(&db, insert).await.unwrap();
    let taken = execute(&db, insert).await.unwrap_err();
    assert_eq!((taken.code(), taken.constraint()), (Some("23505"), Some("accounts_email_key")));
    let none =
        db.run("test", async |conn| sqlx::query("SELECT 1 WHERE false").fetch_one(conn).await.map(drop));
    assert!(matches!(none.await, Err(Error::Query(sqlx::Error::RowNotFound))));
    let wrong_type =
        db.run("test", async |conn| sqlx::query_scalar::<_, String>("SELECT 1").fetch_one(conn).await);
    assert!(matches!(wrong_type.await, Err(Error::Query(_))));
    assert_eq!(backend(&db).await, before, "none of these is the connection's fault");
    for sqlstate in ["40P01", "53100", "55P03", "57014", "58030"] {
        let sql = sqlx::AssertSqlSafe(format!("DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$"));
        let raised = db.run("test", async |conn| sqlx::query(sql).execute(conn).await).await;
        assert!(matches!(raised, Err(Error::Unavailable(_))), "{sqlstate} {raised:?}");
    }
    assert_eq!(backend(&db).await, before);
}

async fn sign_up(db: &Postgres, email: &str, then: Result<u32, Error>) -> Result<u32, Error> {
    let sql = "INSERT INTO accounts (id, email, password_hash) VALUES ($1, $2, '$')";
    db.transaction("INSERT accounts", async |conn| {
        sqlx::query(sql).bind(Uuid::now_v7()).bind(email).execute(&mut *conn).await?;
        then
    })
    .await
}

async fn accounts(db: &Postgres) -> Vec<String> {
    let sql = "SELECT email FROM accounts ORDER BY id";
    db.run("SELECT accounts", async |conn| sqlx::query_scalar(sql).fetch_all(conn).await).await.unwrap()
}

#[sqlx::test]
async fn a_transaction_is_kept_or_undone_as_a_whole(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let before = backend(&db).await;
    assert_eq!(sign_up(&db, "kept", Ok(7)).await.unwrap(), 7);
    let refused = Err(Error::Query(sqlx::Error::RowNotFound));
    assert!(matches!(sign_up(&db, "undone", refused).await, Err(Error::Query(sqlx::Error::RowNotFound))));
    assert_eq!(sign_up(&db, "KEPT", Ok(7)).await.unwrap_err().code(), Some("23505"));
    assert_eq!(accounts(&db).await, ["kept"]);
    assert_eq!(backend(&db).await, before, "its connection is as good as before");
}

#[sqlx::test]
async fn a_transaction_dropped_half_way_is_undone(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let before = backend(&db).await;
    let half = db.transaction("test", async |conn| -> Result<(), Error> {
        sqlx::query("INSERT INTO accounts VALUES (gen_random_uuid(), 'half', '$')").execute(conn).await?;
        std::future::pending().await
    });
    timeout(Duration::from_millis(100), half).await.unwrap_err();
    assert_eq!(accounts(&db).await, [""; 0]);
    assert_ne!(backend(&db).await, before);
}

#[sqlx::test]
async fn migrations_that_failed_do_not_count(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let mut versions = migrate::versions();
    assert_eq!(db.migrations().await.unwrap(), versions);
    execute(&db, "UPDATE _sqlx_migrations SET success = false WHERE version = 1").await.unwrap();
    versions.remove(0);
    assert_eq!(db.migrations().await.unwrap(), versions);
    execute(&db, "DROP TABLE _sqlx_migrations").await.unwrap();
    assert_eq!(db.migrations().await.unwrap(), [0; 0]);
}

#[sqlx::test]
async fn the_least_of_all_limits_on_connections_holds(_: PgPoolOptions, options: PgConnectOptions) {
    let role = format!("limited_{}", std::process::id());
    let db = postgres(&options, 1);
    execute(&db, format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 7").leak()).await.unwrap();
    let limited = postgres(&options.clone().username(&role), 1);
    assert!(db.most_connections().await.unwrap() > 7);
    assert_eq!(limited.most_connections().await.unwrap(), 7);
    let database = options.get_database().unwrap();
    execute(&db, format!("ALTER DATABASE \"{database}\" CONNECTION LIMIT 3").leak()).await.unwrap();
    assert_eq!(limited.most_connections().await.unwrap(), 3);
    limited.close().await;
    execute(&db, format!("DROP ROLE {role}").leak()).await.unwrap();
}

#[sqlx::test]
async fn a_closed_pool_leaves_no_session_behind(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 3);
    hold(&db, 3).await;
    db.close().await;
    assert!(matches!(one(&db).await, Err(Error::Unavailable(_))));
    let other = postgres(&options, 1);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let sessions = async |conn: &mut PgConnection| sqlx::query_scalar::<_, i64>(sql).fetch_one(conn).await;
    while other.run("test", sessions).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

async fn title_length(db: &Postgres, account: &Uuid, title: &str) -> Result<i32, Error> {
    const SQL: &str = "SELECT length($1) WHERE $2 IS NOT NULL";
    db.run("SELECT", async |conn| sqlx::query_scalar(SQL).bind(title).bind(account).fetch_one(conn).await)
        .await
}

async fn handler(State(db): State<Postgres>, title: String) -> String {
    let id = Uuid::now_v7();
    let length = title_length(&db, &id, &title).await.unwrap();
    let signed_up = sign_up(&db, &title, Ok(1)).await.unwrap();
    format!("{length} {signed_up}")
}

#[sqlx::test]
async fn a_handler_may_lend_its_values_and_sees_where_its_time_went(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let router = Router::new().route("/", post(handler)).with_state(postgres(&options, 1));
    let request = hurried(Duration::from_secs(1));
    let call = router.oneshot(http::Request::post("/").body(Body::from("four")).unwrap());
    let response = request.clone().scope(call).await.unwrap();
    assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "4 1");
    assert!(request.spent_ms(Part::Db) > 0.0);
}

#[sqlx::test]
async fn workers_part_the_connections_and_lend_what_they_have_to_spare(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let workers = Workers::start(2).unwrap();
    let db = Postgres::new(&url(&options), 5, &workers).unwrap();
    let (shared, runtimes) = (db.clone(), workers.runtimes().collect::<Vec<_>>());
    let all_by_one = runtimes[0].spawn(async move { hold(&shared, 5).await });
    all_by_one.await.unwrap();
    let mut own = Vec::new();
    for runtime in runtimes {
        let db = db.clone();
        own.push(runtime.spawn(async move { backend(&db).await }).await.unwrap());
    }
    assert_ne!(own[0], own[1]);
    assert_eq!(backend(&db).await, own[0], "whoever is no worker borrows");
    assert_eq!(db.connections(), (0, 5));
    db.close().await;
    assert!(matches!(one(&db).await, Err(Error::Unavailable(_))));
    assert_eq!(db.connections(), (0, 0));
}

#[sqlx::test]
async fn there_may_be_fewer_connections_than_workers(_: PgPoolOptions, options: PgConnectOptions) {
    let workers = Workers::start(3).unwrap();
    let db = Postgres::new(&url(&options), 2, &workers).unwrap();
    for runtime in workers.runtimes() {
        let db = db.clone();
        runtime.spawn(async move { hold(&db, 2).await }).await.unwrap();
    }
}
