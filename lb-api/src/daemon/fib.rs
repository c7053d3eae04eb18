//! Carries the router's FIB to the dataplane.

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_routing::{FibBatch, Update};
use tokio::sync::mpsc;

use super::dataplane::{DataplaneHandle, Owned, sentence};

/// Applies batch after batch, until the router or the dataplane ends.
pub(super) async fn pump(mut batches: mpsc::Receiver<FibBatch>, dataplane: DataplaneHandle) {
    while let Some(batch) = batches.recv().await {
        let applied = match batch {
            FibBatch::Updates(updates) => dataplane.with(move |owned| apply(owned, &updates)).await,
            FibBatch::Synced => {
                tracing::info!("the FIB is in step with the kernel's routes");
                dataplane.with(|owned| owned.dataplane.fib_synced()).await
            }
        };
        if applied.is_err() {
            return;
        }
    }
}

fn apply(owned: &mut Owned, updates: &[Update]) {
    for update in updates {
        match update {
            Update::Route { prefix, source, .. } => {
                owned.sources.insert((prefix.network(), prefix.prefix()), *source);
            }
            Update::RouteRemoved { prefix } => {
                owned.sources.remove(&(prefix.network(), prefix.prefix()));
            }
            Update::Group { .. } | Update::GroupRemoved { .. } => {}
        }
    }
    let updates: Vec<_> = updates.iter().map(convert).collect();
    let before = owned.dataplane.fib_left_out();
    let done = owned.dataplane.fib_apply(&updates);
    let now = owned.dataplane.fib_left_out();
    match done {
        // A table that is full refuses a great many: the first one is told, and the rest is counted.
        Err(error) if before == 0 || now == 0 => tracing::error!(
            why = sentence(&error),
            "the eBPF FIB cannot hold this: until it can, the kernel forwards its packets by the kernel's own routes, which lack those of install: dataplane"
        ),
        Ok(()) | Err(_) => {}
    }
    if before > 0 && now == 0 {
        tracing::info!("the eBPF FIB holds every route again");
    }
}

fn convert(update: &Update) -> FibUpdate {
    match update {
        Update::Group { id, action, like: None } => {
            FibUpdate::Group { id: *id, action: convert_action(action) }
        }
        Update::Group { id, action, like: Some(like) } => {
            FibUpdate::GroupLike { id: *id, action: convert_action(action), like: *like }
        }
        Update::GroupRemoved { id } => FibUpdate::GroupRemoved { id: *id },
        Update::Route { prefix, group, .. } => {
            FibUpdate::Route { prefix: prefix.network(), len: prefix.prefix(), group: *group }
        }
        Update::RouteRemoved { prefix } => {
            FibUpdate::RouteRemoved { prefix: prefix.network(), len: prefix.prefix() }
        }
    }
}

fn convert_action(action: &lb_routing::Action) -> Action {
    match action {
        lb_routing::Action::Forward(members) => {
            Action::Forward(members.iter().map(convert_member).collect())
        }
        lb_routing::Action::Kernel => Action::Kernel,
        lb_routing::Action::Blackhole => Action::Blackhole,
    }
}

fn convert_member(member: &lb_routing::Member) -> Member {
    let lb_routing::Member { ifindex, source_mac, destination_mac, gateway, mtu, weight } = *member;
    Member { ifindex, source_mac, destination_mac, gateway, mtu, weight }
}
