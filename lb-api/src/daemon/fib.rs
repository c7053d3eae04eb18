//! Carries the router's FIB to the dataplane.

use std::collections::{HashMap, HashSet};

use ipnetwork::IpNetwork;
use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_routing::{FibBatch, ToldGroup, ToldRoute, Update, Whole};
use tokio::sync::mpsc;

use super::dataplane::{DataplaneHandle, Owned, sentence};

/// Applies batch after batch, until the router or the dataplane ends.
pub(super) async fn pump(mut batches: mpsc::Receiver<FibBatch>, dataplane: DataplaneHandle) {
    while let Some(batch) = batches.recv().await {
        let applied = match batch {
            FibBatch::Updates(updates) => dataplane.with(move |owned| apply(owned, &updates)).await,
            FibBatch::Whole(whole) => dataplane.with(move |owned| take_over(owned, whole)).await,
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

/// Makes the FIB what the router has, by what differs.
fn take_over(owned: &mut Owned, whole: Whole) {
    let Whole { groups, routes, taken } = whole;
    let mut beyond: HashMap<_, _> =
        owned.dataplane.fib_table().map(|(prefix, len, group)| ((prefix, len), group)).collect();
    let mut unnamed: HashSet<u32> = owned.dataplane.fib_groups().collect();
    let mut updates = Vec::new();
    for ToldGroup { id, action, is_apart } in groups {
        unnamed.remove(&id);
        updates.push(Update::Group { id, action, like: None, is_apart });
    }
    for ToldRoute { prefix, group, source, .. } in routes {
        if beyond.remove(&(prefix.network(), prefix.prefix())) != Some(group) {
            updates.push(Update::Route { prefix, group, source });
        }
    }
    let prefix = |(address, len)| IpNetwork::new(address, len).ok();
    let beyond = beyond.into_keys().filter_map(prefix);
    updates.extend(beyond.map(|prefix| Update::RouteRemoved { prefix }));
    updates.extend(unnamed.into_iter().map(|id| Update::GroupRemoved { id }));
    apply(owned, &updates);
    // Who does not wait any more needs no answer.
    let _gone = taken.send(());
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
            "the eBPF FIB cannot hold this: until it can, the kernel forwards the packets of such routes, and those that the kernel lacks (install: dataplane) are dropped"
        ),
        Ok(()) | Err(_) => {}
    }
    if before > 0 && now == 0 {
        tracing::info!("the eBPF FIB holds every route again");
    }
}

fn convert(update: &Update) -> FibUpdate {
    match update {
        Update::Group { id, action, like, is_apart } => FibUpdate::GroupWith {
            id: *id,
            action: convert_action(action),
            like: *like,
            is_apart: *is_apart,
        },
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
