//! `drill upstream [--port N]`: the stub preview upstream for development. Without a port, any free one.

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let port: u16 = match args[..] {
        ["upstream"] => 0,
        ["upstream", "--port", port] => port.parse().context("--port wants a number")?,
        _ => bail!("usage: drill upstream [--port N]"),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))?;
    println!("upstream listening on http://{}", listener.local_addr()?);
    drill::upstream::serve(listener).await
}
