//! A client of lbd's REST API over its Unix socket: one connection a request, no runtime.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_api_types::peer::Peer;
use lb_api_types::problem::Problem;
use lb_api_types::view::{Appliance, BgpRoute, FibEntry, Flow, List, PeerView, Status};
use lb_api_types::vip::Vip;
use serde::de::DeserializeOwned;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Where the daemon answers.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body, if it is a problem document.
    pub fn problem(&self) -> Result<Problem> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {}: no problem document: {}", self.status, self.body))
    }
}

impl Api {
    /// A client of the daemon at a socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request to `/api/v1/PATH`.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("lbd does not answer at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut head =
            format!("{method} /api/v1/{path} HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n");
        if let Some(body) = body {
            head.push_str("Content-Type: application/json\r\n");
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        write!(stream, "{head}\r\n{}", body.unwrap_or_default())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        parse(&answer).with_context(|| format!("{method} {path}"))
    }

    /// A resource's text.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let answer = self.request("GET", path, None)?;
        if answer.status != 200 {
            bail!("GET {path} gave {}: {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.get_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("GET {path} gave {text}"))
    }

    fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        Ok(self.get::<List<T>>(path)?.items)
    }

    /// The appliance as a whole.
    pub fn status(&self) -> Result<Status> {
        Ok(self.get::<Appliance>("status")?.status)
    }

    /// BGP neighbours.
    pub fn peers(&self) -> Result<Vec<PeerView>> {
        let peers: Vec<Peer> = self.list("bgp/peers")?;
        Ok(peers.into_iter().filter_map(|peer| peer.status).collect())
    }

    /// BGP paths.
    pub fn routes(&self) -> Result<Vec<BgpRoute>> {
        self.list("bgp/routes")
    }

    /// The eBPF FIB.
    pub fn fib(&self) -> Result<Vec<FibEntry>> {
        self.list("fib")
    }

    /// Flows.
    pub fn flows(&self) -> Result<Vec<Flow>> {
        self.list("flows")
    }

    /// VIPs.
    pub fn vips(&self) -> Result<Vec<Vip>> {
        self.list("vips")
    }

    /// One VIP.
    pub fn vip(&self, name: &str) -> Result<Vip> {
        self.get(&format!("vips/{name}"))
    }

    /// Creates or replaces a VIP; the answer as it is.
    pub fn try_put_vip(&self, name: &str, vip: &Value) -> Result<Answer> {
        self.request("PUT", &format!("vips/{name}"), Some(&vip.to_string()))
    }

    /// Creates or replaces a VIP.
    pub fn put_vip(&self, vip: &Vip) -> Result<()> {
        let name = &vip.metadata.name;
        let answer = self.try_put_vip(name, &serde_json::to_value(vip)?)?;
        if !(200..300).contains(&answer.status) {
            bail!("PUT vips/{name} gave {}: {}", answer.status, answer.body);
        }
        Ok(())
    }
}

/// Splits an HTTP/1.1 answer of a connection that was closed after it (RFC 9112 §6.3); chunks are joined (§7.1).
fn parse(answer: &str) -> Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of header")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.context("the answer has no status code")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok(Answer { status, body })
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut joined = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk has no size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size is no number")?;
        if size == 0 {
            return Ok(joined);
        }
        joined.push_str(rest.get(..size).context("a chunk is cut short")?);
        body = rest.get(size + 2..).context("a chunk has no end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_chunks() {
        let plain = parse("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (404, "{}"));
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "abcd");
        assert!(parse("garbage").is_err());
    }
}
