//! Item 7: a request is one trace with its caller, with what it asks, and with its line in the log.

use anyhow::Result;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{Finding, Subject};
use crate::{client::http1::ask, collector::Collector, process::Signal, proxy::Mode, stop::stage::Stage};

/// Of the caller.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

pub async fn check(subject: &Subject) -> Result<Finding> {
    let collector = Collector::start().await?;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url), ("SHUTDOWN_LAME_DUCK", "0s")];
    let stage = Stage::start(&subject.setup, "traces", Mode::Pass, &env).await?;
    stage.server.ready().await?;
    let cookie = stage.sign_up().await?;
    let preview = stage.cold_preview(&cookie).await?;
    let path = preview.as_deref().unwrap_or("/v1/sessions");
    let headers = format!("{cookie}traceparent: 00-{TRACE}-{CALLER}-01\r\nx-request-id: traced\r\n");
    let answer = ask(stage.address(), &format!("GET {path}"), &headers, "").await?;
    let mut finding = Finding::default();
    finding.unless(answer.status == 200, format!("GET {path}: {}", answer.status));
    let line = stage.server.line(|line| line["request_id"] == "traced" && line["status"].is_u64()).await?;
    stage.server.signal(Signal::Term)?;
    stage.server.wait().await?;

    let spans = collector.spans()?.into_iter().filter(|span| hex(&span.trace_id) == TRACE);
    let (own, calls): (Vec<_>, Vec<_>) = spans.partition(|span| span.kind() == SpanKind::Server);
    let below_caller = own.len() == 1 && hex(&own[0].parent_span_id) == CALLER;
    finding.unless(
        below_caller,
        format!("one span of the request expected below its caller's: {} in its trace", own.len()),
    );
    let id = own.first().map(|span| hex(&span.span_id)).unwrap_or_default();
    let below_own = calls.iter().filter(|call| hex(&call.parent_span_id) == id).count();
    finding.unless(
        below_own > 0 && below_own == calls.len(),
        format!("{below_own} of {} calls are below the request's span", calls.len()),
    );
    let logged = line["trace_id"] == TRACE && line["span_id"] == *id;
    finding.unless(
        logged,
        format!("the line has trace_id {} and span_id {}", line["trace_id"], line["span_id"]),
    );
    let upstream = match preview {
        Some(_) => {
            let callers = stage.upstream.callers();
            let known = calls.iter().map(|call| format!("00-{TRACE}-{}-01", hex(&call.span_id)));
            let called = known.into_iter().any(|call| callers.last() == Some(&call));
            finding.unless(called, format!("the upstream was told of no span of ours: {:?}", callers.last()));
            "the upstream told of its span"
        }
        None => "no upstream here",
    };
    finding.evidence = format!(
        "below its caller's span: the request's, and below that {below_own} of what it asked; {upstream}; its line has trace_id and span_id"
    );
    Ok(finding)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
