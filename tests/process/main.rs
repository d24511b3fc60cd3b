//! The built server as a process, with real Postgres and Redis: how it starts, stops, shares and refuses. {%- capture file %}{% raw %}
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod bad_input;
mod boot;
mod canaries; // example
mod doctor;
mod hostile;
mod logs;
mod monitoring;
mod operations;
mod previews; // example
mod rotation;
mod service;
mod shared;
mod stop;
mod supervised;
mod time_split; // example
mod traces;
mod walk;
mod wire;
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
