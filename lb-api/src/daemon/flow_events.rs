//! Tells whoever watches of flows, one in so many: from the dataplane's ring, in a thread of its own.

use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result};
use lb_api_types::config;
use lb_api_types::event::{EventKind, FlowEndView, FlowEventView};
use lb_dataplane::{FlowEnd, FlowEvent};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dataplane::DataplaneHandle;
use crate::events::Events;

/// Begins to tell, if flows are to be watched; ends with the process.
pub(super) async fn spawn(
    dataplane: &DataplaneHandle,
    config: &config::Dataplane,
) -> Result<Option<Events>> {
    if config.sample_flows.is_none() {
        return Ok(None);
    }
    let taken = dataplane.with(|owned| owned.dataplane.take_flow_events()).await;
    let ring = taken.map_err(anyhow::Error::msg)??;
    let mut ring = ring.context("somebody else reads the dataplane's events of flows")?;
    let events = Events::default();
    let told = events.clone();
    thread::Builder::new().name("flow-events".into()).spawn(move || {
        loop {
            while let Some(event) = ring.next_event() {
                tell(&told, &event);
            }
            let mut readable = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "no more events of flows are told");
                    return;
                }
            }
        }
    })?;
    Ok(Some(events))
}

fn tell(events: &Events, event: &FlowEvent) {
    let flow = view(event);
    let way = format!("{} {} to {}", flow.protocol, flow.client, flow.backend);
    let (kind, message) = match &flow.end {
        None => (EventKind::FlowNew, way),
        Some(end) => (
            EventKind::FlowEnd,
            format!(
                "{way}: {} after {} ms, {} packets there and {} back",
                end.how, end.duration_ms, end.packets_to_backend, end.packets_to_client
            ),
        ),
    };
    events.tell_flow(kind, flow.vip.clone(), message, flow);
}

fn view(event: &FlowEvent) -> FlowEventView {
    let end = |end: &FlowEnd| FlowEndView {
        how: end.how.name().into(),
        duration_ms: u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
        packets_to_backend: end.packets[0],
        bytes_to_backend: end.bytes[0],
        packets_to_client: end.packets[1],
        bytes_to_client: end.bytes[1],
    };
    FlowEventView {
        protocol: event.protocol.name().into(),
        client: event.client.to_string(),
        vip: event.vip.to_string(),
        source: event.source.to_string(),
        backend: event.backend.to_string(),
        end: event.end.as_ref().map(end),
    }
}
