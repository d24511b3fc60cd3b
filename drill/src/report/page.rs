//! The page: everything inline, readable in the light and in the dark.

use super::{Plot, Report, Row, plot};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2128;--soft:#59636e;--line:#d1d9e0;--back:#fff;--good:#1a7f37;--bad:#cf222e;--mark:#9a6700;--accent:#0969da;--shade:#0969da22}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--back:#0d1117;--good:#3fb950;--bad:#f85149;--mark:#d29922;--accent:#4493f8;--shade:#4493f82e}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
td:nth-child(-n+2),th:nth-child(-n+2),.words td,.words th{text-align:left}th{color:var(--soft);font-weight:600}
.ok{color:var(--good)}.miss{color:var(--bad)}.why{color:var(--bad);font-size:.9em}
.scroll{overflow-x:auto}svg{max-width:100%;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .soft{fill:var(--soft)}
svg .good{fill:var(--good)}svg .bad{fill:var(--bad)}svg .limit{stroke:var(--mark);stroke-width:2}svg .grid{stroke:var(--line)}
svg .warn{fill:var(--mark)}svg .shade{fill:var(--shade)}svg path{fill:none;stroke-width:1.5;stroke-linejoin:round}
svg .p50{stroke:var(--ink)}svg .p99{stroke:var(--accent)}svg .t50{fill:var(--ink);font-weight:600}svg .t99{fill:var(--accent);font-weight:600}
svg tspan.good,svg tspan.bad,svg tspan.warn{font-weight:600}figure{margin:0 0 1.2rem}
";

pub fn html(report: &Report, plot: Plot) -> String {
    let verdict = if report.passes() {
        "<p class=ok>Everything is within its limits.</p>"
    } else {
        "<p class=miss>A limit was missed.</p>"
    };
    let head: String = report.columns.iter().map(|column| format!("<th>{}", escape(column))).collect();
    let rows: String = report.rows.iter().map(row).collect();
    let limits: String = report
        .limits
        .iter()
        .map(|limit| {
            let cells = [
                limit.name.to_owned(),
                format!("{} {}", grouped(&limit.value().to_string()), limit.unit),
                limit.source.to_owned(),
            ];
            format!("<tr>{}", cells.iter().map(|cell| format!("<td>{}", escape(cell))).collect::<String>())
        })
        .collect();
    let words = if report.words { " class=words" } else { "" };
    let (title, about) = (escape(report.title), escape(report.about));
    let picture = plot::svg(report.all(), plot);
    let over_time: String = report
        .rows
        .iter()
        .filter_map(|row| row.over_time.as_ref())
        .map(|timeline| format!("<figure class=scroll>{}</figure>", timeline.svg()))
        .collect();
    let over_time = if over_time.is_empty() { over_time } else { format!("<h2>Over time</h2>{over_time}") };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{verdict}<p>{about}</p>\
         <div class=scroll>{picture}</div>\
         <h2>Results</h2><div class=scroll><table{words}><tr><th><th>{head}{rows}</table></div>{over_time}\
         <h2>Limits</h2><table class=words><tr><th>Limit<th>Value<th>Where it comes from{limits}</table></html>\n"
    )
}

fn row(row: &Row) -> String {
    let (class, word) = (if row.misses.is_empty() { "ok" } else { "miss" }, row.verdict());
    let cells: String = row.cells.iter().map(|cell| format!("<td>{}", grouped(&escape(cell)))).collect();
    let why: String =
        row.misses.iter().map(|miss| format!("<div class=why>{}</div>", escape(miss))).collect();
    format!("<tr><td class={class}>{word}<td>{}{why}{cells}", escape(&row.name))
}

/// A long number in groups of three digits; anything else as it is.
fn grouped(cell: &str) -> String {
    if cell.len() < 5 || !cell.bytes().all(|byte| byte.is_ascii_digit()) {
        return cell.to_owned();
    }
    let groups: Vec<&[u8]> = cell.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
