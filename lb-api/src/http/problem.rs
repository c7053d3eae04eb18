//! The one mapping from what is refused to an HTTP answer (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lb_api_types::access::Role;
use lb_api_types::problem::{FieldProblem, Problem};

use super::BODY_WITHIN;
use super::request::{self, ANSWER_WITHIN};
use crate::access::{Caller, TokenError};
use crate::events::MAX_WATCHERS;
use crate::read::Mistake;
use crate::registry::Refusal;

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Refused(
    Box<Problem>,
    /// Seconds after which to try again.
    Option<u64>,
);

impl Refused {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            pointer: None,
            errors: Vec::new(),
            request_id: None,
        };
        Self(Box::new(problem), None)
    }

    fn at(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// The same of a part of a document, where the field stands elsewhere.
    pub(crate) fn moved(mut self, place: impl FnOnce(&str) -> String) -> Self {
        let field = self.0.pointer.take().unwrap_or_default();
        self.at(place(&field))
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let detail =
            format!("there is nothing at {path}: /api/v1/openapi.json lists what there is");
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn method(method: &Method, path: &str) -> Self {
        let detail =
            format!("{path} does not know {method}: /api/v1/openapi.json lists what it knows");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "method-not-allowed", "Method not allowed", detail)
    }

    pub(crate) fn busy(most: usize) -> Self {
        let detail = format!(
            "{most} connections are open already, which is the most: close some, or try again later"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many connections", detail)
    }

    /// The whole answer as it goes over a connection that is closed behind it.
    pub(crate) fn as_http1(&self) -> Vec<u8> {
        let body = serde_json::to_string(&self.0).unwrap_or_default();
        let (status, title, length) = (self.0.status, &self.0.title, body.len());
        format!(
            "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n\
             retry-after: 5\r\nconnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }

    pub(crate) fn host() -> Self {
        let detail =
            "the request's Host is no loopback name: use http://127.0.0.1 or http://localhost";
        Self::new(StatusCode::FORBIDDEN, "foreign-host", "Foreign host", detail)
    }

    pub(crate) fn media_type(wanted: &str) -> Self {
        let detail = format!("the body has to be JSON: send Content-Type: {wanted}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "unsupported-media-type", "Unsupported media type", detail)
    }

    pub(crate) fn too_large(most: usize) -> Self {
        let detail = format!("the body is larger than {most} bytes: send it in parts");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large", detail)
    }

    pub(crate) fn body(error: &dyn std::fmt::Display) -> Self {
        let detail = format!("the body did not arrive whole: {error}");
        Self::new(StatusCode::BAD_REQUEST, "broken-body", "Broken body", detail)
    }

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        let detail = format!("the body is no well-formed JSON: {error}");
        Self::new(StatusCode::BAD_REQUEST, "malformed-json", "Malformed JSON", detail)
    }

    pub(crate) fn path(error: &dyn std::fmt::Display) -> Self {
        let detail = format!("the path cannot be read: {error}; write names in plain letters");
        Self::new(StatusCode::BAD_REQUEST, "invalid-path", "Invalid path", detail)
    }

    pub(crate) fn query(said: &str, known: &str) -> Self {
        let detail = format!("the query has `{said}`, but {known}");
        Self::new(StatusCode::BAD_REQUEST, "invalid-query", "Invalid query", detail)
    }

    pub(crate) fn header(name: &str, wanted: &str) -> Self {
        let detail = format!("the header {name} has to be {wanted}");
        Self::new(StatusCode::BAD_REQUEST, "invalid-header", "Invalid header", detail)
    }

    pub(crate) fn slow_body() -> Self {
        let detail = format!("the body did not arrive within {} s", BODY_WITHIN.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "Slow body", detail)
    }

    pub(crate) fn name_differs(path: &str, body: &str) -> Self {
        let detail = format!("metadata.name is {body}, but the path says {path}: use one name");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "Invalid field", detail)
            .at("/metadata/name")
    }

    /// The first mistake in full, and all of them where there are several.
    pub(crate) fn fields(mistakes: &[Mistake]) -> Self {
        let all = mistakes.iter().map(|mistake| FieldProblem {
            detail: format!("{} {}", mistake.path, mistake.message),
            pointer: mistake.path.pointer(),
        });
        let all: Vec<_> = all.collect();
        let (detail, pointer) = match all.first() {
            Some(first) => (first.detail.clone(), first.pointer.clone()),
            None => ("a field is wrong".into(), String::new()),
        };
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut refused = Self::new(status, "invalid-field", "Invalid field", detail).at(pointer);
        if all.len() > 1 {
            refused.0.errors = all;
        }
        refused
    }

    pub(crate) fn too_many_watchers() -> Self {
        let detail = format!("{MAX_WATCHERS} clients watch events already: end one of them");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "too-many-watchers", "Too many watchers", detail)
    }

    /// RFC 6750 §3: what is missing or wrong is a token.
    pub(crate) fn unauthorized(why: &str) -> Self {
        let detail = format!(
            "{why}: send Authorization: Bearer and a token (`lbctl create token` makes one)"
        );
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail)
    }

    pub(crate) fn user(uid: u32) -> Self {
        let detail = format!("user {uid} may not use lbd: give them a role in api.users");
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    pub(crate) fn role(caller: &Caller, needed: Role) -> Self {
        let (name, has, needed) = (&caller.name, caller.role.name(), needed.name());
        let detail = format!("{name} has the role {has}, and this needs {needed}: ask an admin");
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    pub(crate) fn limited(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("too many logins from there have failed: wait {seconds} s");
        let mut refused =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "limited", "Too many failures", detail);
        refused.1 = Some(seconds);
        refused
    }

    pub(crate) fn no_backend(vip: &str, at: std::net::SocketAddr) -> Self {
        let detail =
            format!("VIP {vip} has no backend {at}: `lbctl describe vip {vip}` lists its backends");
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn backend_name(said: &str) -> Self {
        let detail =
            format!("`{said}` names no backend: write its address and port, such as 10.0.0.1:8080");
        Self::new(StatusCode::BAD_REQUEST, "invalid-path", "Invalid path", detail)
    }

    pub(crate) fn too_often(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("too many requests come from there: wait {seconds} s");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut refused = Self::new(status, "limited", "Too many requests", detail);
        refused.1 = Some(seconds);
        refused
    }

    pub(crate) fn crowded(most: usize) -> Self {
        let detail = format!("{most} requests are in work, which is the most: wait 1 s");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut refused = Self::new(status, "busy", "Too many requests at once", detail);
        refused.1 = Some(1);
        refused
    }

    pub(crate) fn slow_answer() -> Self {
        let detail = format!(
            "there was no answer within {} s: see whether the change was made before it is repeated",
            ANSWER_WITHIN.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "slow", "Slow answer", detail)
    }

    pub(crate) fn certificate() -> Self {
        let detail = "the client's certificate has no role, or counts no longer: list one of its DNS names in api.tls.clients, have it signed by whom api.tls.client_ca_file names now, or bring a token";
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    pub(super) fn not_watched() -> Self {
        let detail = "no flow is watched: set dataplane.sample_flows in the configuration file to watch one in so many, and start lbd anew";
        Self::new(StatusCode::CONFLICT, "not-watched", "Not watched", detail)
    }

    pub(crate) fn unavailable(why: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", why)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let conflict =
            |kind: &str, title: &str| Self::new(StatusCode::CONFLICT, kind, title, detail.clone());
        let unavailable = |kind: &str, title: &str| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail.clone())
        };
        let invalid = |detail| {
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "Invalid field", detail)
        };
        match refusal {
            Refusal::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
            }
            Refusal::Stale { .. } | Refusal::Exists(_) | Refusal::Gone(_) => {
                let status = StatusCode::PRECONDITION_FAILED;
                Self::new(status, "precondition-failed", "Precondition failed", detail)
            }
            Refusal::Twice(_) => conflict("duplicate-name", "Duplicate name"),
            Refusal::FromFile(_) => conflict("from-file", "Defined by the file"),
            Refusal::Duplicate { .. } => {
                conflict("duplicate-service", "Duplicate service").at("/spec/address")
            }
            Refusal::NotAlone { .. } => {
                conflict("duplicate-backend", "Duplicate backend").at("/spec/backends")
            }
            Refusal::Unconfirmed(_) => conflict("unconfirmed", "A configuration is not confirmed"),
            Refusal::NothingToConfirm => conflict("nothing-to-confirm", "Nothing to confirm"),
            Refusal::NoGeneration(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
            }
            Refusal::TooMany(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "too-many", "Too many VIPs", detail)
            }
            Refusal::TooManyOf(..) => {
                let status = StatusCode::INSUFFICIENT_STORAGE;
                Self::new(status, "too-many", "Too many of a kind", detail)
            }
            Refusal::Missing { field, .. } => invalid(detail).at(field),
            Refusal::NotOfPool { .. } => invalid(detail).at("/spec/address"),
            Refusal::Wrong { ref field, .. } => invalid(detail.clone()).at(field.as_str()),
            Refusal::Exhausted { .. } => {
                conflict("pool-exhausted", "The pool is exhausted").at("/spec/pool")
            }
            Refusal::InUse { .. } | Refusal::AddressInUse { .. } => conflict("in-use", "In use"),
            Refusal::Dataplane(_) => unavailable("dataplane-refuses", "The dataplane refuses"),
            Refusal::NotWritten(_) | Refusal::Store(_) => {
                unavailable("not-kept", "The state cannot be kept")
            }
            Refusal::Stopping => unavailable("stopping", "Stopping"),
        }
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        let (status, kind, title) = match &error {
            TokenError::Exists(_) => (StatusCode::CONFLICT, "duplicate-name", "Duplicate name"),
            TokenError::Unknown(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            TokenError::TooMany => {
                (StatusCode::INSUFFICIENT_STORAGE, "too-many", "Too many tokens")
            }
            TokenError::NotKept(_) | TokenError::Later(..) => {
                (StatusCode::SERVICE_UNAVAILABLE, "not-kept", "The state cannot be kept")
            }
        };
        Self::new(status, kind, title, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(mut self) -> Response {
        self.0.request_id = Some(request::id()).filter(|id| !id.is_empty());
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut answer = (status, kind, Json(*self.0)).into_response();
        if let Some(seconds) = self.1 {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        answer
    }
}
