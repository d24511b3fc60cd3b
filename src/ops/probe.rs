//! `server healthcheck`: asks the process in the same container, for images without a shell.
use anyhow::{Context, ensure};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(2);

/// Asks `/healthz` of the operations port that `bound` names.
///
/// # Errors
/// When there is no answer within 2 s, or another one than 200.
pub fn healthcheck(bound: SocketAddr) -> anyhow::Result<()> {
    let host = if bound.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound.ip() };
    let address = SocketAddr::new(host, bound.port());
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)
        .with_context(|| format!("nothing answers on {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{address} does not answer"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{address} answers {status}");
    Ok(())
}
