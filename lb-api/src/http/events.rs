//! Events as a stream: server-sent events, as the HTML standard describes them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::stream::{self, Stream};
use lb_api_types::event::{Event, EventKind};
use lb_api_types::problem::Problem;

use super::App;
use super::guard::Names;
use super::problem::Refused;
use super::terms::Asked;
use crate::access::Caller;
use crate::events::{Events, From, Heard, Watcher};

/// How often a stream says something, so that both sides notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One of a stream, with the fields of server-sent events.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what is written field by field")]
pub(super) struct StreamedEvent {
    /// Its place, for `Last-Event-ID`.
    id: String,
    /// Its kind: `vip-created`.
    event: String,
    /// It as JSON: an `Event`.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// What happens, as server-sent events: `event` is the kind, `data` the event as JSON. A client that comes back with
/// `Last-Event-ID` hears what it has missed, or `missed` where that is no longer kept; one that is too slow is cut.
#[utoipa::path(get, path = "/api/v1/events", tag = "status",
    params(("past" = Option<bool>, Query, description = "Begin with what is kept of the past"),
        ("follow" = Option<bool>, Query, description = "Wait for what comes; true by default"),
        ("kind" = Option<String>, Query, pattern = "^[a-z]+(-[a-z]+)*(,[a-z]+(-[a-z]+)*)*$", description = "Only events of these kinds, and `missed`: vip-advertised,vip-withdrawn"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the event that was heard last")),
    responses((status = 200, body = StreamedEvent, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many watch already")))]
pub(super) async fn get_events(
    State(app): State<App>,
    asked: Asked,
    caller: Option<Extension<Caller>>,
    names: Option<Extension<Names>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    stream_of(&app.events, &asked, &headers, still_in(&app, caller, names))
}

/// What happens to flows that are watched, one in as many as `dataplane.sample_flows` says, in the same way: `flow` of an
/// event's data is the flow, with counts at its end.
#[utoipa::path(get, path = "/api/v1/flows/events", tag = "dataplane",
    params(("past" = Option<bool>, Query, description = "Begin with what is kept of the past"),
        ("follow" = Option<bool>, Query, description = "Wait for what comes; true by default"),
        ("kind" = Option<String>, Query, pattern = "^[a-z]+(-[a-z]+)*(,[a-z]+(-[a-z]+)*)*$", description = "Only events of these kinds, and `missed`: vip-advertised,vip-withdrawn"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the event that was heard last")),
    responses((status = 200, body = StreamedEvent, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "No flow is watched"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many watch already")))]
pub(super) async fn get_flow_events(
    State(app): State<App>,
    asked: Asked,
    caller: Option<Extension<Caller>>,
    names: Option<Extension<Names>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    let events = app.views.flow_events().ok_or_else(Refused::not_watched)?;
    stream_of(&events, &asked, &headers, still_in(&app, caller, names))
}

/// Whether whoever listens may go on to: a token can expire or be removed while a stream lasts, and so can a certificate.
fn still_in(
    app: &App,
    caller: Option<Extension<Caller>>,
    names: Option<Extension<Names>>,
) -> impl Fn() -> bool + Send + Sync + use<> {
    let access = Arc::clone(&app.access);
    move || {
        let Some(Extension(caller)) = &caller else { return true };
        access.is_still_in(caller, names.as_ref().and_then(|Extension(names)| names.now()))
    }
}

fn stream_of<F: Fn() -> bool + Send + Sync + 'static>(
    events: &Events,
    asked: &Asked,
    headers: &HeaderMap,
    still_in: F,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>> + use<F>>, Refused> {
    let Wanted { past, follow, kinds } = wanted(asked)?;
    let from = match headers.get("last-event-id") {
        // One that is no text is no id of ours: events were missed.
        Some(id) => From::After(id.to_str().unwrap_or_default().to_owned()),
        None if past => From::Start,
        None => From::Now,
    };
    let watcher = events.watch(&from).ok_or_else(Refused::too_many_watchers)?;
    Ok(Sse::new(told(watcher, follow, kinds, still_in))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn told(
    watcher: Watcher,
    follow: bool,
    kinds: Vec<EventKind>,
    still_in: impl Fn() -> bool + Send + Sync,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let batches = stream::unfold((watcher, still_in), move |(mut watcher, still_in)| async move {
        let heard =
            if follow { listen(&mut watcher, &still_in).await } else { watcher.hear_kept() };
        match heard {
            Heard::Events(events) if still_in() => Some((events, (watcher, still_in))),
            Heard::Events(_) | Heard::Nothing | Heard::Ended | Heard::Overrun => None,
        }
    });
    futures::StreamExt::flat_map(batches, move |mut events| {
        let is_wanted =
            |kind| kinds.is_empty() || kind == EventKind::Missed || kinds.contains(&kind);
        events.retain(|event| is_wanted(event.kind));
        stream::iter(events.into_iter().map(|event| Ok(written(&event))))
    })
}

/// Waits for what comes, as long as the listener may hear it.
async fn listen(watcher: &mut Watcher, still_in: &(impl Fn() -> bool + Sync)) -> Heard {
    while still_in() {
        if let Ok(heard) = tokio::time::timeout(KEEP_ALIVE, watcher.hear()).await {
            return heard;
        }
    }
    Heard::Ended
}

fn written(event: &Arc<Event>) -> sse::Event {
    let written = sse::Event::default().id(event.id.clone()).event(event.kind.name());
    // Text and enumerations only: it has JSON.
    let data = serde_json::to_string(&**event).unwrap_or_default();
    written.data(data)
}

/// What of the events is asked for.
struct Wanted {
    past: bool,
    follow: bool,
    /// All, where it is empty.
    kinds: Vec<EventKind>,
}

fn wanted(asked: &Asked) -> Result<Wanted, Refused> {
    let mut wanted = Wanted { past: false, follow: true, kinds: Vec::new() };
    for (name, value) in &asked.0 {
        match (name.as_str(), value.as_str()) {
            ("past", "true" | "false") => wanted.past = value == "true",
            ("follow", "true" | "false") => wanted.follow = value == "true",
            ("kind", kinds) => {
                for kind in kinds.split(',') {
                    wanted.kinds.push(kind_of(kind)?);
                }
            }
            _ => {
                let known = "only past and follow, true or false, and kind are known here";
                return Err(Refused::query(&format!("{name}={value}"), known));
            }
        }
    }
    Ok(wanted)
}

fn kind_of(name: &str) -> Result<EventKind, Refused> {
    let found = EventKind::ALL.iter().find(|kind| kind.name() == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        let known = format!("the kinds of events are {}", known.join(", "));
        Refused::query(&format!("kind={name}"), &known)
    })
}
