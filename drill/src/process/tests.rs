use std::net::TcpListener;

use super::*;

/// A shell script in place of the service.
fn script(script: &str) -> Builder {
    Server::builder("/bin/sh").args(&["-c", script]).limit(Duration::from_secs(5))
}

const LISTENING: &str = r#"echo '{"msg":"listening","port":4001,"ops_port":4002}'"#;

#[tokio::test]
async fn ports_come_from_the_listening_line() {
    let server = script(&format!("echo plain; echo '{{\"msg\":\"hello\"}}'; {LISTENING}; sleep 5"))
        .start()
        .await
        .unwrap();
    assert_eq!(server.url("/v1/x"), "http://127.0.0.1:4001/v1/x");
    assert_eq!(server.ops_url("/healthz"), "http://127.0.0.1:4002/healthz");
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn the_environment_holds_only_what_was_given() {
    let server = script("env; echo '{\"done\":1}'").env("A", 1).env("PORT", 8080).spawn().unwrap();
    server.line(|line| line["done"] == 1).await.unwrap();
    let lines = server.lines();
    for expected in ["A=1", "PORT=8080", "OPS_PORT=0", "HOST=127.0.0.1"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("CARGO")), "{lines:?}");
}

#[tokio::test]
async fn a_process_that_ends_early_explains_itself() {
    let start = Instant::now();
    let error = script("echo said; echo wrong >&2; exit 78").start().await.err().unwrap().to_string();
    assert!(error.contains("said") && error.contains("stdout ended"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "it fails at once, not at the limit");

    let server = script("echo wrong >&2; exit 78").spawn().unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(78));
    assert_eq!(server.stderr(), "wrong\n");
    assert!(server.signal(Signal::Term).unwrap_err().to_string().contains("exit status: 78"));
}

#[tokio::test]
async fn a_line_is_found_whether_it_was_logged_before_or_comes_later() {
    let server = script("echo '{\"n\":1}'; sleep 0.3; echo '{\"n\":2}'; sleep 5").spawn().unwrap();
    for n in [1, 2, 1] {
        assert_eq!(server.line(|line| line["n"] == n).await.unwrap()["n"], n);
    }
}

#[tokio::test]
async fn waits_are_bounded() {
    let server = script("echo '{}'; sleep 5").limit(Duration::from_millis(100)).spawn().unwrap();
    assert!(
        server.line(|line| line["n"] == 1).await.unwrap_err().to_string().contains("did not come within")
    );
    assert!(server.wait().await.unwrap_err().to_string().contains("still running"));
}

#[tokio::test]
async fn a_signal_is_sent_and_the_time_to_the_end_is_measured() {
    let trap = "trap 'sleep 0.3; echo bye; exit 3' TERM; echo '{}'; while :; do sleep 0.01; done";
    let server = script(trap).spawn().unwrap();
    server.line(|_| true).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let signalled = Instant::now();
    server.signal(Signal::Term).unwrap();
    let exit = server.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (Some(3), None));
    // From the signal on, not from the start, however busy the machine is.
    let longest = signalled.elapsed();
    assert!((Duration::from_millis(300)..=longest).contains(&exit.took), "{exit:?}, {longest:?}");
    assert_eq!(server.lines().last().unwrap(), "bye");
}

#[tokio::test]
async fn a_killed_process_reports_the_signal() {
    let server = script("sleep 5").spawn().unwrap();
    server.signal(Signal::Kill).unwrap();
    let exit = server.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
}

#[tokio::test]
async fn a_dropped_server_is_killed() {
    let server = script("trap '' TERM INT; echo '{}'; while :; do sleep 0.01; done").spawn().unwrap();
    server.line(|_| true).await.unwrap();
    let pid = server.pid;
    drop(server);
    let gone = async {
        while signal::kill(pid, None).is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn ready_polls_until_200_and_fails_fast_when_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = format!("echo '{{\"msg\":\"listening\",\"port\":1,\"ops_port\":{port}}}'");
    let answers = std::thread::spawn(move || {
        use std::io::Write as _;
        for status in [503, 503, 200] {
            let (mut peer, _) = listener.accept().unwrap();
            write!(peer, "HTTP/1.1 {status} X\r\n\r\n").unwrap();
        }
    });
    let server = script(&format!("{line}; sleep 5")).start().await.unwrap();
    server.ready().await.unwrap();
    answers.join().unwrap();

    let server = script(&format!("{line}; sleep 0.2; exit 1")).start().await.unwrap();
    let error = server.ready().await.unwrap_err().to_string();
    assert!(error.contains("ended before it was ready") && error.contains("exit status: 1"), "{error}");
}

#[tokio::test]
async fn run_returns_what_a_command_printed() {
    let output = run("/bin/sh", &["-c", "echo $A; echo no >&2; exit 7"], &[("A", "yes")]).await.unwrap();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(7), "yes\n", "no\n"));
    assert!(run("/nonexistent", &[], &[]).await.unwrap_err().to_string().contains("cannot start"));
}
