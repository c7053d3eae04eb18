//! Who may ask for what: every request passes here first.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lb_api_types::access::Role;
use tokio::task::JoinError;

use super::problem::Refused;
use super::request;
use super::room::{self, Place, Room};
use super::tls::Shown;
use crate::access::{Access, Caller, Denied, Peer};

/// What has no end.
const EVENTS: [&str; 2] = ["/api/v1/events", "/api/v1/flows/events"];
const METRICS: &str = "/metrics";
/// What is asked with a body and changes nothing.
const ONLY_LOOKS: [&str; 2] = ["/api/v1/config/diff", "/api/v1/config/validate"];

/// What else is written down of a request, such as a name that its path does not say.
#[derive(Clone, Debug)]
pub(super) struct Noted(pub(super) String);

/// The certificate that the other end has shown to be its own, if any.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(pub(super) Option<Arc<Shown>>);

impl Names {
    /// Its names as they count now.
    pub(super) fn now(&self) -> Option<&[String]> {
        self.0.as_deref().map(Shown::names)
    }
}

/// What a request passes.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) access: Arc<Access>,
    pub(super) room: Room,
}

/// Lets a request through, or says why not; changes and refusals are written down.
pub(super) async fn guard(
    State(Gate { access, room }): State<Gate>,
    mut asked: Request,
    next: Next,
) -> Response {
    // Whoever serves the router says who is at the other end; nobody is nobody.
    let peer = asked.extensions().get::<Peer>().copied();
    let peer = peer.unwrap_or(Peer::Unix { uid: u32::MAX, pid: None });
    let (method, path) = (asked.method().clone(), asked.uri().path().to_owned());
    let needed = needed(&method, &path, peer);
    // Probes are answered however much is asked and in work.
    if needed.is_none() && path != METRICS {
        return next.run(asked).await;
    }
    if let Err(wait) = access.count(peer) {
        return Refused::too_often(wait).into_response();
    }
    let caller = match needed {
        None => None,
        Some(needed) => match admit(&access, peer, &asked, needed) {
            Ok(caller) => Some(caller),
            Err(answer) => return *answer,
        },
    };
    let place = match room.place(peer).await {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    let Some(caller) = caller else {
        return room::keep(next.run(asked).await, place);
    };
    asked.extensions_mut().insert(caller.clone());
    match needed {
        // Who watches has a bound of its own, and takes no room while nothing happens.
        Some(Role::Viewer) if EVENTS.contains(&path.as_str()) => {
            drop(place);
            next.run(asked).await
        }
        None | Some(Role::Viewer) => room::keep(next.run(asked).await, place),
        Some(_) => carry_out(access, caller, peer, asked, next, place).await,
    }
}

/// Who asks, if they may have what they ask for; otherwise what they are told, which is written down.
fn admit(
    access: &Access,
    peer: Peer,
    asked: &Request,
    needed: Role,
) -> Result<Caller, Box<Response>> {
    let names = asked.extensions().get::<Names>().and_then(Names::now);
    let admitted = token(asked.headers())
        .and_then(|token| access.admit(peer, token, names).map_err(Refused::denied));
    let (refused, caller) = match admitted {
        Ok(caller) if caller.role >= needed => return Ok(caller),
        Ok(caller) => (Refused::role(&caller, needed), Some(caller)),
        Err(refused) => (refused, None),
    };
    let answer = refused.into_response();
    // Whoever is not listened to fills no disk.
    if answer.status() != StatusCode::TOO_MANY_REQUESTS {
        let what = format!("{} {}", asked.method(), asked.uri().path());
        access.record_refusal(
            caller.as_ref(),
            peer,
            &request::id(),
            &what,
            answer.status().as_u16(),
        );
    }
    Err(Box::new(answer))
}

/// Carries a change out and writes it down, both also where its client goes away or no longer waits.
async fn carry_out(
    access: Arc<Access>,
    caller: Caller,
    peer: Peer,
    asked: Request,
    next: Next,
    place: Place,
) -> Response {
    let id = request::id();
    let (method, uri) = (asked.method().clone(), asked.uri().clone());
    let under_way = access.begin();
    let done = tokio::spawn(request::within(id.clone(), async move {
        let _until_it_is_written_down = under_way;
        let answer = next.run(asked).await;
        let status = answer.status();
        let query = uri.query().filter(|_| status.is_success());
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let noted = answer.extensions().get::<Noted>();
        let noted = noted.map_or(String::new(), |Noted(what)| format!(" ({what})"));
        let what = format!("{method} {}{query}{noted}", uri.path());
        access.record(&caller, peer, &id, &what, status.as_u16());
        room::keep(answer, place)
    }));
    match done.await.map_err(JoinError::try_into_panic) {
        Ok(answer) => answer,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => Refused::unavailable("lbd is about to end".into()).into_response(),
    }
}

/// The role that a request needs; `None` where everybody may.
fn needed(method: &Method, path: &str, peer: Peer) -> Option<Role> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let is_here = match peer {
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Peer::Unix { .. } => true,
    };
    match path {
        "/healthz" | "/readyz" if reads => None,
        METRICS if reads && is_here => None,
        _ if path == "/api/v1/tokens" || path.starts_with("/api/v1/tokens/") => Some(Role::Admin),
        _ if reads || ONLY_LOOKS.contains(&path) => Some(Role::Viewer),
        _ => Some(Role::Operator),
    }
}

/// The token of a request (RFC 6750 §2.1), if it brings one.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (all.next(), all.next());
    let Some(value) = first else { return Ok(None) };
    let bearer = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match (bearer, second) {
        (Some(token), None) => Ok(Some(token)),
        (Some(_), Some(_)) | (None, _) => Err(Refused::authorization()),
    }
}

impl Refused {
    fn authorization() -> Self {
        Self::header("Authorization", "there once, as Bearer and a token")
    }

    fn denied(denied: Denied) -> Self {
        match denied {
            Denied::NoToken => Self::unauthorized("the request has no token"),
            Denied::Unknown => Self::unauthorized("the token is nobody's"),
            Denied::Expired => Self::unauthorized("the token has expired"),
            Denied::User(uid) => Self::user(uid),
            Denied::Certificate => Self::certificate(),
            Denied::Limited(wait) => Self::limited(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_needs_a_role_but_probes_and_metrics_of_this_host() {
        let far = Peer::Tcp(([203, 0, 113, 1], 4000).into());
        let near = Peer::Tcp(([127, 0, 0, 1], 4000).into());
        let need = |method: Method, path| needed(&method, path, far);
        assert_eq!(need(Method::GET, "/healthz"), None);
        assert_eq!(need(Method::GET, "/readyz"), None);
        assert_eq!(need(Method::POST, "/healthz"), Some(Role::Operator));
        assert_eq!(need(Method::GET, "/metrics"), Some(Role::Viewer));
        assert_eq!(needed(&Method::GET, "/metrics", near), None);
        for path in ["/", "/api/v1/vips", "/healthz/", "/api/v1/openapi.json", "//healthz"] {
            assert_eq!(need(Method::GET, path), Some(Role::Viewer), "{path}");
            assert_eq!(need(Method::PUT, path), Some(Role::Operator), "{path}");
            assert_eq!(needed(&Method::PATCH, path, near), Some(Role::Operator), "{path}");
        }
        for path in ["/api/v1/config/diff", "/api/v1/config/validate"] {
            assert_eq!(need(Method::POST, path), Some(Role::Viewer), "{path} changes nothing");
        }
        for path in ["/api/v1/config", "/api/v1/config/confirm", "/api/v1/config/rollback"] {
            assert_eq!(need(Method::POST, path), Some(Role::Operator), "{path}");
        }
        for path in ["/api/v1/tokens", "/api/v1/tokens/ci"] {
            assert_eq!(need(Method::GET, path), Some(Role::Admin));
            assert_eq!(need(Method::DELETE, path), Some(Role::Admin));
        }
    }

    #[test]
    fn one_bearer_token_is_taken_and_nothing_else() {
        let taken = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = axum::http::HeaderValue::from_bytes(value).unwrap();
                headers.append(header::AUTHORIZATION, value);
            }
            token(&headers).ok().map(|token| token.map(str::to_owned))
        };
        assert_eq!(taken(&[]), Some(None));
        assert_eq!(taken(&[b"bEaReR  x "]), Some(Some("x".into())));
        for bad in [&b"Basic eDp4"[..], b"Bearer", b"x", b"Bearer \xff", b""] {
            assert_eq!(taken(&[bad]), None);
        }
        assert_eq!(taken(&[b"Bearer x", b"Bearer x"]), None);
    }
}
