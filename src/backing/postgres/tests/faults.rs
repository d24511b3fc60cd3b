//! What becomes of queries when the database or the way to it is ill.
use super::*;

#[sqlx::test]
async fn one_silent_idle_connection_is_enough_to_replace_them_all(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (proxy, db) = proxied(&options, 5).await;
    hold(&db, 5).await;
    proxy.freeze();
    sleep(TRUSTED).await;
    let start = Instant::now();
    one(&db).await.unwrap();
    assert!(start.elapsed() < ACQUIRE, "{:?}", start.elapsed());
    assert_eq!((proxy.accepted(), db.connections()), (6, (0, 1)));
}

#[sqlx::test]
async fn a_request_waits_for_a_silent_connection_no_longer_than_it_may(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (proxy, db) = proxied(&options, 1).await;
    one(&db).await.unwrap();
    proxy.freeze();
    let start = Instant::now();
    let error = hurried(Duration::from_millis(200)).scope(one(&db)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(start.elapsed() < ACQUIRE, "{:?}", start.elapsed());
    one(&db).await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_fails_at_once_and_a_silent_server_within_the_limit() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Secret::from(format!("postgres://x@{}/x?sslmode=disable", listener.local_addr().unwrap()));
    let db = Postgres::new(&url, 2, &Workers::none()).unwrap();
    let start = Instant::now();
    assert!(matches!(one(&db).await, Err(Error::Unavailable(_))));
    let waited = start.elapsed();
    assert!(waited >= ACQUIRE && waited < ACQUIRE * 4, "{waited:?}");
    drop(listener);
    let start = Instant::now();
    assert!(matches!(one(&db).await, Err(Error::Unavailable(_))));
    assert!(start.elapsed() < ACQUIRE, "{:?}", start.elapsed());
}

#[sqlx::test]
async fn when_the_server_ends_every_session_one_query_fails_at_most(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let db = postgres(&options, 5);
    hold(&db, 5).await;
    let other = postgres(&options, 1);
    let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&other, sql).await.unwrap();
    // None at all when a second has passed: the connection is then asked for a sign of life first.
    if let Err(error) = one(&db).await {
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    for _ in 0..10 {
        one(&db).await.unwrap();
    }
}

#[sqlx::test]
async fn a_new_url_is_used_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let (proxy, db) = proxied(&options, 2).await;
    hold(&db, 2).await;
    let (next, _) = proxied(&options, 1).await;
    let options = options.clone().host("127.0.0.1").port(next.address.port());
    db.turn_to(&url(&options)).unwrap();
    proxy.freeze();
    one(&db).await.unwrap();
    assert_eq!((proxy.accepted(), next.accepted()), (2, 1));
    assert!(db.turn_to(&Secret::from("nonsense".to_owned())).is_err());
    one(&db).await.unwrap();
}

#[sqlx::test]
async fn a_connection_to_a_server_turned_read_only_is_not_used_again(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let db = postgres(&options, 2);
    hold(&db, 2).await;
    let before = backend(&db).await;
    execute(&db, "SET default_transaction_read_only = on").await.unwrap();
    let error = execute(&db, "DELETE FROM accounts").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert_ne!(backend(&db).await, before);
    assert_eq!(db.connections(), (0, 1), "the others have the same server");
}

#[sqlx::test]
async fn a_changed_result_type_fails_once(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let all = "SELECT * FROM accounts";
    execute(&db, all).await.unwrap();
    execute(&db, "ALTER TABLE accounts ADD COLUMN more int").await.unwrap();
    assert_eq!(execute(&db, all).await.unwrap_err().code(), Some("0A000"));
    execute(&db, all).await.unwrap();
}

#[sqlx::test]
async fn a_read_survives_a_changed_result_type(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 1);
    let columns = async || {
        let all =
            async |conn: &mut PgConnection| sqlx::query("SELECT * FROM accounts").fetch_optional(conn).await;
        db.read("test", all).await
    };
    columns().await.unwrap();
    execute(&db, "ALTER TABLE accounts ADD COLUMN more int").await.unwrap();
    columns().await.unwrap();
}

#[sqlx::test]
async fn a_read_survives_the_end_of_every_session_and_a_write_does_not(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (db, other) = (postgres(&options, 5), postgres(&options, 1));
    let end_all = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    hold(&db, 5).await;
    execute(&other, end_all).await.unwrap();
    let read = async |conn: &mut PgConnection| sqlx::query("SELECT 1").fetch_one(conn).await;
    db.read("test", read).await.unwrap();
    hold(&db, 5).await;
    execute(&other, end_all).await.unwrap();
    assert!(matches!(execute(&db, "DELETE FROM accounts").await, Err(Error::Unavailable(_))));
}

#[sqlx::test]
async fn what_nobody_waits_for_ends_in_the_server(_: PgPoolOptions, options: PgConnectOptions) {
    let (db, other) = (postgres(&options, 1), postgres(&options, 1));
    let abandoned = timeout(Duration::from_millis(100), execute(&db, "SELECT pg_sleep(4)")).await;
    assert!(abandoned.is_err());
    assert_eq!(db.connections(), (0, 0), "its place is free at once");
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(4)'
        AND datname = current_database() AND state = 'active'";
    let start = Instant::now();
    let count = async || {
        let ask =
            async |conn: &mut PgConnection| sqlx::query_scalar::<_, i64>(sleeping).fetch_one(conn).await;
        other.read("test", ask).await.unwrap()
    };
    while count().await > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[sqlx::test]
async fn a_locked_row_is_waited_for_two_seconds(_: PgPoolOptions, options: PgConnectOptions) {
    let db = postgres(&options, 2);
    let locked: Result<(), Error> = db
        .transaction("test", async |conn| {
            sqlx::query("LOCK accounts").execute(conn).await?;
            let start = Instant::now();
            assert!(matches!(execute(&db, "DELETE FROM accounts").await, Err(Error::Unavailable(_))));
            assert!(start.elapsed().as_secs() == 2, "{:?}", start.elapsed());
            Ok(())
        })
        .await;
    locked.unwrap();
}
