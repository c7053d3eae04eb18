//! `events`, and `get vips --watch`: the daemon's stream of events, resumed where it breaks off.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use lb_api_types::event::{Event, EventKind};
use lb_api_types::vip::Vip;

use super::arguments::{Format, Home, Kind};
use super::client::{Client, segment};
use super::show::{self, Part, items, json, typed, vips, yaml};
use super::table::{Widths, or_dash};
use super::{Answer, CtlError, print};

/// Between two looks at what has no events.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one event at most.
const MAX_EVENT: usize = 1 << 20;
/// Between attempts to come back.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Attempts in a row to come back to a daemon that does not answer, such as one that is started anew.
const MAX_ATTEMPTS: usize = 60;

/// Shows what is kept, and with `watch` goes on until the daemon has been gone for a while.
pub(super) async fn show(
    client: &Client,
    flows: bool,
    kinds: &[String],
    watch: bool,
    format: Format,
) -> Result<Answer, CtlError> {
    if format == Format::Name {
        return Err(CtlError::Other("events have no names: choose another -o".into()));
    }
    let of = if flows { "flows/events" } else { "events" };
    let kinds = match kinds {
        [] => String::new(),
        kinds => format!("&kind={}", segment(&kinds.join(","))),
    };
    let path = format!("{of}?past=true&follow={watch}{kinds}");
    let mut events = Events::open(client, &path).await?;
    while let Some(event) = events.next(watch).await? {
        match format {
            Format::Json => print(&format!("{}\n", serde_json::json!(event))),
            Format::Yaml => print(&format!("---\n{}", yaml(&serde_json::json!(event))?)),
            Format::Table | Format::Wide | Format::Name => print(&line(&event)),
        }
    }
    Ok(Answer::Yes(String::new()))
}

/// What is kept of the past.
pub(super) async fn past(client: &Client) -> Result<Vec<Event>, CtlError> {
    let mut events = Events::open(client, "events?past=true&follow=false").await?;
    let mut all = Vec::new();
    while let Some(event) = events.next(false).await? {
        all.push(event);
    }
    Ok(all)
}

fn line(event: &Event) -> String {
    let name = or_dash(Some(event.name.clone()));
    format!("{}  {:18}  {name:22}  {}\n", event.time, event.kind.name(), event.message)
}

/// Lists what there is of a kind, and then each that changes.
pub(super) async fn get(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    part: &Part,
    format: Format,
) -> Result<Answer, CtlError> {
    match kind {
        Kind::Vips => follow_vips(client, name, part, format).await,
        Kind::Routes | Kind::Fib | Kind::Flows | Kind::Status | Kind::Version => {
            look_again(client, kind, name, part, format).await
        }
        Kind::Pools
        | Kind::Backends
        | Kind::HealthChecks
        | Kind::Nodes
        | Kind::Interfaces
        | Kind::BgpGlobal
        | Kind::Peers
        | Kind::PeerGroups
        | Kind::Policies
        | Kind::Sets
        | Kind::Addresses
        | Kind::StaticRoutes
        | Kind::Config
        | Kind::Events
        | Kind::Tokens => follow(client, kind, name, part, format).await,
    }
}

/// Lists VIPs, and then each that changes.
async fn follow_vips(
    client: &Client,
    name: Option<&str>,
    part: &Part,
    format: Format,
) -> Result<Answer, CtlError> {
    let selected = |vip: &Vip| match &part.selector {
        Some(selector) => selector.takes(&vip.metadata.labels),
        None => true,
    };
    let wanted = |vip: &Vip| name.is_none_or(|name| vip.metadata.name == name) && selected(vip);
    // Opened first, so that nothing is missed between the list and the stream.
    let mut events = Events::open(client, "events").await?;
    let all: Vec<Vip> = items(client.get("vips").await?)?;
    let mut shown = Shown { format, widths: None, names: BTreeSet::new() };
    shown.write(&all.into_iter().filter(wanted).collect::<Vec<_>>())?;
    while let Some(event) = events.next(true).await? {
        let changed = match event.kind {
            EventKind::VipDeleted => {
                if shown.names.remove(&event.name) {
                    say_gone("vip", &event.name, format);
                }
                continue;
            }
            EventKind::VipCreated
            | EventKind::VipUpdated
            | EventKind::VipAdvertised
            | EventKind::VipWithdrawn => get_vip(client, &event.name).await?,
            EventKind::ConditionChanged => match event.name.strip_prefix("vips/") {
                Some(name) => get_vip(client, name).await?,
                None => continue,
            },
            EventKind::BackendHealth => {
                let all: Vec<Vip> = items(client.get("vips").await?)?;
                all.into_iter().filter(|vip| has_backend(vip, &event.name)).collect()
            }
            EventKind::Missed | EventKind::DataplaneAttached | EventKind::DataplaneDetached => {
                items(client.get("vips").await?)?
            }
            EventKind::PeerState
            | EventKind::PeerRefused
            | EventKind::AlarmRaised
            | EventKind::AlarmCleared
            | EventKind::PathsChanged
            | EventKind::FibChanged
            | EventKind::FlowsChanged
            | EventKind::InterfaceState
            | EventKind::ResourceCreated
            | EventKind::ResourceUpdated
            | EventKind::ResourceDeleted
            | EventKind::ConfigApplied
            | EventKind::ConfigConfirmed
            | EventKind::ConfigRolledBack
            | EventKind::DataplaneRefuses
            | EventKind::FlowNew
            | EventKind::FlowEnd => continue,
        };
        shown.write(&changed.into_iter().filter(wanted).collect::<Vec<_>>())?;
    }
    Ok(Answer::Yes(String::new()))
}

/// Says that one of what was shown is gone, beside documents where those are written.
fn say_gone(noun: &str, name: &str, format: Format) {
    match format {
        Format::Table | Format::Wide | Format::Name => print(&format!("{noun}/{name} deleted\n")),
        Format::Json | Format::Yaml => eprintln!("{noun}/{name} deleted"),
    }
}

/// The VIP of an event; where it is gone again, the event about that comes next.
async fn get_vip(client: &Client, name: &str) -> Result<Vec<Vip>, CtlError> {
    match client.get(&vip(name)).await {
        Ok(value) => Ok(vec![typed(value)?]),
        Err(CtlError::Refused(problem)) if problem.status == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Lists what there is, and whenever something happens what of it is other than before.
async fn follow(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    part: &Part,
    format: Format,
) -> Result<Answer, CtlError> {
    // Opened first, so that nothing is missed between the list and the stream.
    let mut events = Events::open(client, "events").await?;
    let mut before = String::new();
    loop {
        let now = show::get(client, kind, name, part, format).await?;
        print(&news(&before, &now, format));
        before = now;
        let Some(event) = events.next(true).await? else { return Ok(Answer::Yes(String::new())) };
        let is_here = |gone: &&str| name.is_none_or(|name| name == *gone);
        if event.kind == EventKind::ResourceDeleted
            && let Some(gone) = of(kind, &event.name).filter(is_here)
        {
            say_gone(&kind.noun(), gone, format);
        }
    }
}

/// Lists what there is, and every second what of it is other than before: of what changes too often for events.
async fn look_again(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    part: &Part,
    format: Format,
) -> Result<Answer, CtlError> {
    let mut before = String::new();
    loop {
        let now = show::get(client, kind, name, part, format).await?;
        print(&news(&before, &now, format));
        before = now;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The name of what an event is about, where it is of this kind.
fn of(kind: Kind, about: &str) -> Option<&str> {
    let path = match kind.home() {
        Home::Kept(kind) => kind?.path(),
        Home::Tokens => "tokens",
        Home::Backends | Home::Seen(_) => return None,
    };
    about.strip_prefix(path)?.strip_prefix('/')
}

/// Of a table the lines that were not there before, under the heading where columns have moved; of a document all where any
/// of it is another.
fn news(before: &str, now: &str, format: Format) -> String {
    match format {
        _ if before == now => String::new(),
        Format::Table | Format::Wide | Format::Name => {
            // Columns that are wider now make no line another one.
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let old: BTreeSet<_> = before.lines().map(words).collect();
            let mut new = now.lines().filter(|line| !old.contains(&words(line))).peekable();
            let heading = now.lines().next().filter(|line| old.contains(&words(line)));
            let heading = heading.filter(|line| !before.starts_with(line) && new.peek().is_some());
            heading.into_iter().chain(new).map(|line| format!("{line}\n")).collect()
        }
        Format::Json => now.to_owned(),
        Format::Yaml => format!("---\n{now}"),
    }
}

fn vip(name: &str) -> String {
    format!("vips/{}", segment(name))
}

fn has_backend(vip: &Vip, socket: &str) -> bool {
    let mut backends = vip.spec.backends.iter();
    backends.any(|b| std::net::SocketAddr::new(b.address, b.port).to_string() == socket)
}

/// VIPs that were shown.
struct Shown {
    format: Format,
    /// Of the columns, once there is a heading.
    widths: Option<Widths>,
    names: BTreeSet<String>,
}

impl Shown {
    fn write(&mut self, all: &[Vip]) -> Result<(), CtlError> {
        let text = match self.format {
            Format::Table | Format::Wide => {
                let is_first = self.widths.is_none();
                let widths = self.widths.get_or_insert_default();
                let text = vips(all, self.format == Format::Wide, widths);
                let rows = text.split_once('\n').map_or("", |(_, rows)| rows).to_owned();
                if is_first { text } else { rows }
            }
            Format::Name => all.iter().map(|vip| format!("vip/{}\n", vip.metadata.name)).collect(),
            Format::Json => all.iter().map(|vip| json(&serde_json::json!(vip))).collect(),
            Format::Yaml => {
                let texts =
                    all.iter().map(|vip| Ok(format!("---\n{}", yaml(&serde_json::json!(vip))?)));
                texts.collect::<Result<String, CtlError>>()?
            }
        };
        self.names.extend(all.iter().map(|vip| vip.metadata.name.clone()));
        print(&text);
        Ok(())
    }
}

/// The stream.
struct Events<'a> {
    client: &'a Client,
    path: &'a str,
    body: Option<Incoming>,
    text: Vec<u8>,
    /// The event that was heard last.
    last: Option<String>,
}

impl<'a> Events<'a> {
    async fn open(client: &'a Client, path: &'a str) -> Result<Self, CtlError> {
        let body = client.events(path, None).await?;
        Ok(Self { client, path, body: Some(body), text: Vec::new(), last: None })
    }

    /// The next event; `None` at the end of a stream that is not to be resumed.
    async fn next(&mut self, resume: bool) -> Result<Option<Event>, CtlError> {
        let mut attempts = 0;
        loop {
            if let Some(event) = take(&mut self.text)? {
                self.last = Some(event.id.clone());
                return Ok(Some(event));
            }
            let frame = match &mut self.body {
                None => None,
                Some(body) => body.frame().await.and_then(Result::ok),
            };
            if let Some(frame) = frame {
                if let Ok(data) = frame.into_data() {
                    self.text.extend_from_slice(&data);
                }
                continue;
            }
            if !resume {
                return Ok(None);
            }
            self.text.clear();
            tokio::time::sleep(AGAIN_AFTER).await;
            // Who has heard nothing yet may have missed something, too: no event has this id.
            let last = self.last.as_deref().unwrap_or("none");
            match self.client.events(self.path, Some(last)).await {
                Ok(body) => self.body = Some(body),
                Err(error @ CtlError::Unreachable { .. }) if attempts == MAX_ATTEMPTS => {
                    return Err(error);
                }
                Err(CtlError::Unreachable { .. }) => attempts += 1,
                Err(other) => return Err(other),
            }
        }
    }
}

/// Takes the first whole event; comments, which keep the connection alive, are left out.
fn take(text: &mut Vec<u8>) -> Result<Option<Event>, CtlError> {
    while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
        let block: Vec<u8> = text.drain(..end + 2).collect();
        let block = String::from_utf8_lossy(&block);
        let data = block.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<_> = data.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        if data.is_empty() {
            continue;
        }
        let value = serde_json::from_str(&data.join("\n"));
        return typed(value.unwrap_or(serde_json::Value::Null)).map(Some);
    }
    if text.len() > MAX_EVENT {
        return Err(CtlError::Other("an event has no end: is it lbd?".into()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_table_only_new_lines_are_told_and_the_heading_once() {
        let (old, new) = ("NAME  FREE\np     2\nq     1\n", "NAME  FREE\np     1\nq     1\n");
        assert_eq!(news("", old, Format::Table), old);
        assert_eq!(news(old, new, Format::Table), "p     1\n");
        let wider = "NAME   FREE\np      2\nlater  3\n";
        assert_eq!(news(old, wider, Format::Table), "NAME   FREE\nlater  3\n");
        assert_eq!(news(wider, old, Format::Table), "NAME  FREE\nq     1\n");
        assert_eq!(news(old, "NAME FREE\np 2\n", Format::Table), "");
        assert_eq!(news(old, old, Format::Json), "");
        assert_eq!(news("{1}", "{2}", Format::Yaml), "---\n{2}");
    }

    #[test]
    fn events_are_taken_whole_and_comments_left_out() {
        let event = r#"{"metadata":{"name":"1-1"},"spec":{"kind":"vip-created","about":"web"},"status":{"conditions":[],"time":"t","message":"m"}}"#;
        let mut text = format!(":\n\nid: 1-1\nevent: vip-created\ndata: {event}\n\nid: 1-2\nda");
        let mut bytes = std::mem::take(&mut text).into_bytes();
        let taken = take(&mut bytes).unwrap().unwrap();
        assert_eq!((taken.kind, taken.name.as_str()), (EventKind::VipCreated, "web"));
        assert_eq!(take(&mut bytes).unwrap(), None, "the second has not come whole");
        bytes.extend_from_slice(format!("ta:{event}\n\n").as_bytes());
        assert!(take(&mut bytes).unwrap().is_some());
        assert!(take(&mut b"data: {}\n\n".to_vec()).is_err());
        assert!(take(&mut vec![b'x'; MAX_EVENT + 1]).is_err());
    }
}
