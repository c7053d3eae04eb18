//! One request, one connection.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lb_api_types::problem::Problem;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{CtlError, tls};
use crate::http::names_loopback;

const WANTED: &str =
    "a server is unix:PATH, http://HOST:PORT or https://HOST:PORT, such as unix:/run/lbd/lbd.sock";
const IS_IT_THERE: &str = "is it running, and is this its address (--server)?";
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of an answer at most.
const MAX_ANSWER: usize = 1 << 30;

/// Where the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
    /// A host and a port, over TLS.
    Tls(String),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let (make, rest, port): (fn(String) -> Self, _, _) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(rest), _) => (Self::Tcp, rest, 80),
                (None, Some(rest)) => (Self::Tls, rest, 443),
                (None, None) => return Err(WANTED.into()),
            };
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            return Err(WANTED.into());
        }
        let said = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        Ok(make(match said {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:{port}"),
        }))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
        }
    }
}

/// Sends requests to one daemon.
#[derive(Clone)]
pub(crate) struct Client {
    server: Server,
    token: Option<String>,
    tls: Option<TlsConnector>,
}

impl Client {
    /// A client with the token of a file, which trusts who signed the server's certificate: those of a file, or those
    /// that this host trusts. Over TLS it may have a certificate and its key.
    pub(crate) fn new(
        server: Server,
        token_file: Option<&Path>,
        ca_file: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, CtlError> {
        let token = token_file.map(|file| {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|error| {
                CtlError::Other(format!("cannot read the token file {}: {error}", file.display()))
            })?;
            match text.trim() {
                "" => Err(CtlError::Other(format!("the token file {} is empty", file.display()))),
                token => Ok(token.to_owned()),
            }
        });
        if let (Some(_), Server::Tcp(authority)) = (&token, &server)
            && !names_loopback(authority)
        {
            let why =
                "a token would go in the clear, and lbd takes none without TLS from elsewhere";
            return Err(CtlError::Usage(format!("{why}: use https://{authority}")));
        }
        let tls = match server {
            Server::Tls(_) => Some(tls::connector(ca_file, identity).map_err(CtlError::Other)?),
            Server::Unix(_) | Server::Tcp(_) => None,
        };
        Ok(Self { server, token: token.transpose()?, tls })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, CtlError> {
        Ok(self.send(Method::GET, path, None, false).await?.1)
    }

    /// Creates or replaces something: whether it is new, and what it is then.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<(bool, Value), CtlError> {
        let (status, value) = self.send(Method::PUT, path, Some(body), false).await?;
        Ok((status == StatusCode::CREATED, value))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, CtlError> {
        Ok(self.send(Method::POST, path, Some(body), false).await?.1)
    }

    /// Changes fields of what is there (RFC 7396): what it is then.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, CtlError> {
        Ok(self.send(Method::PATCH, path, Some(body), false).await?.1)
    }

    /// Creates something that is not there yet: what it is then.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> Result<Value, CtlError> {
        Ok(self.send(Method::PUT, path, Some(body), true).await?.1)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), CtlError> {
        self.send(Method::DELETE, path, None, false).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        only_new: bool,
    ) -> Result<(StatusCode, Value), CtlError> {
        let sent = self.exchange(method, path, body, only_new);
        let sent = tokio::time::timeout(ANSWER_WITHIN, sent);
        let (status, bytes) = match sent.await {
            Ok(answer) => answer?,
            Err(_elapsed) => return Err(self.slow()),
        };
        if !status.is_success() {
            return Err(self.refused(status, &bytes));
        }
        let value = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        let no_json = |_| CtlError::Other(format!("{} answers no JSON: is it lbd?", self.server));
        Ok((status, value.map_err(no_json)?))
    }

    /// Opens a stream of events at a path with its query, after the one with an id where there was one.
    pub(crate) async fn events(
        &self,
        path: &str,
        after: Option<&str>,
    ) -> Result<Incoming, CtlError> {
        let request = self.request(path);
        let request = after.iter().fold(request, |r, id| r.header("last-event-id", *id));
        let request = request.body(Full::new(Bytes::new())).map_err(no_such_path)?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.connect_and_send(request)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(self.slow()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let bytes = body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
        Err(self.refused(status, &bytes))
    }

    /// What is counted, as Prometheus reads it.
    pub(crate) async fn metrics(&self) -> Result<String, CtlError> {
        let request = self.request_at("/metrics").body(Full::new(Bytes::new()));
        let sent = self.connect_and_send(request.map_err(no_such_path)?);
        let answer = tokio::time::timeout(ANSWER_WITHIN, sent).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(self.slow()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let bytes = body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            false => Err(self.refused(status, &bytes)),
        }
    }

    fn slow(&self) -> CtlError {
        self.unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> CtlError {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(_) if status == StatusCode::UNAUTHORIZED && self.token.is_none() => CtlError::Other(
                "lbd asks for a token here: name its file with --token-file or in LBD_TOKEN_FILE; an admin makes one with \
                 `lbctl create token`".into(),
            ),
            Ok(problem) => CtlError::Refused(Box::new(problem)),
            Err(_) => CtlError::Other(format!("{} answers {status}: is it lbd?", self.server)),
        }
    }

    /// What every request begins with.
    fn request(&self, path: &str) -> Builder {
        self.request_at(&format!("/api/v1/{path}"))
    }

    fn request_at(&self, path: &str) -> Builder {
        let host = match &self.server {
            Server::Unix(_) => "lbd",
            Server::Tcp(authority) | Server::Tls(authority) => authority,
        };
        let request = Request::builder().uri(path).header("host", host);
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        only_new: bool,
    ) -> Result<(StatusCode, Bytes), CtlError> {
        let bytes = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut request = self.request(path);
        if only_new {
            request = request.header("if-none-match", "*");
        }
        let kind = if method == Method::PATCH { "merge-patch+json" } else { "json" };
        let request = request
            .method(method)
            .header("accept", "application/json")
            .header("content-type", format!("application/{kind}"))
            .body(Full::new(bytes))
            .map_err(no_such_path)?;
        let answer = self.connect_and_send(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes()))
    }

    async fn connect_and_send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CtlError> {
        let failed = |error: std::io::Error| CtlError::Unreachable {
            server: self.server.to_string(),
            why: error.to_string(),
            remedy: self.remedy(&error),
        };
        match &self.server {
            Server::Unix(path) => {
                self.over(UnixStream::connect(path).await.map_err(failed)?, request).await
            }
            Server::Tcp(authority) => {
                self.over(TcpStream::connect(authority).await.map_err(failed)?, request).await
            }
            Server::Tls(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(failed)?;
                let Some(tls) = &self.tls else { return Err(self.slow()) };
                let name = tls::name(authority).map_err(CtlError::Other)?;
                self.over(tls.connect(name, stream).await.map_err(failed)?, request).await
            }
        }
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CtlError> {
        let failed = |error: hyper::Error| self.unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(failed)
    }

    fn unreachable(&self, why: String) -> CtlError {
        CtlError::Unreachable { server: self.server.to_string(), why, remedy: IS_IT_THERE }
    }

    /// What to do about a connection that does not come about.
    pub(super) fn remedy(&self, error: &std::io::Error) -> &'static str {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match (&self.server, error.kind(), tls) {
            (Server::Unix(_), ErrorKind::PermissionDenied, _) => {
                "run lbctl as root, or have `api.users` of lbd's file name your user"
            }
            (_, _, Some(rustls::Error::InvalidCertificate(_))) => {
                "name with --ca-file who signed its certificate, and with --server a name that the certificate has"
            }
            (_, _, Some(rustls::Error::InvalidMessage(_))) => {
                "is that TLS at all? If not, say http:// in --server"
            }
            (_, _, _) => IS_IT_THERE,
        }
    }
}

fn no_such_path(error: hyper::http::Error) -> CtlError {
    CtlError::Other(format!("no such path: {error}"))
}

/// A name as a segment of a path (RFC 3986 §2.3).
pub(super) fn segment(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let escape = |byte: u8| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}
