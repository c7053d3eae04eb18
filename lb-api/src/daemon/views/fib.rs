//! The eBPF FIB as people see it, and whether router and kernel agree with it.

mod against;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use lb_api_types::resource::Condition;
use lb_api_types::view::{
    FibAuditView, FibEntry, FibLookupView, FibMemberView, FibSpec, FibStatus, FibToldView,
    FibUsageView, KernelRouteView, SeenMetadata,
};
use lb_dataplane::fib::{Action, Audit, FibLookup, FibRoute, FibUsage, Member, Packet};
use lb_routing::{KernelAnswer, KernelNextHop, KernelRouteKind, RouterTable, Source, Told};

use self::against::{Differences, Sides, World, is_as_told};
use super::Live;

/// Interfaces' names by their indices.
type Names = HashMap<u32, String>;

/// What the kernel tells has come through the router to eBPF after this time.
const SETTLING: Duration = Duration::from_millis(500);
/// Differences that are told one by one.
const FINDINGS: usize = 20;

/// What of the memory is in use.
pub(super) fn usage(usage: &FibUsage) -> FibUsageView {
    let FibUsage { routes: [routes_v4, routes_v6], groups, members, .. } = *usage;
    let FibUsage { chunks, chunks_max, node_bytes: (node_bytes, node_bytes_max), .. } = *usage;
    let FibUsage { updates, refused, left_out, dropped, .. } = *usage;
    FibUsageView {
        routes_v4,
        routes_v6,
        groups,
        members,
        chunks,
        chunks_max,
        node_bytes,
        node_bytes_max,
        updates,
        refused,
        left_out,
        dropped,
    }
}

/// What a packet meets.
pub(super) async fn lookup(live: &Live, packet: Packet) -> Result<FibLookupView, String> {
    let found = live.dataplane.with(move |owned| owned.dataplane.fib_lookup(&packet)).await?;
    let told = live.router.lookup(packet.destination).await;
    let answers =
        lb_routing::ask(&[packet.destination]).await.map_err(|error| error.to_string())?;
    let kernel = answers.first().ok_or("the kernel does not answer")?;
    let world = world(live).await?;
    let names = &world.names;
    let (action, members) = match &found.action {
        Some(action) => action_view(action, names),
        None => ("none".into(), Vec::new()),
    };
    Ok(FibLookupView {
        destination: packet.destination,
        prefix: found.route.and_then(|(prefix, len)| IpNetwork::new(prefix, len).ok()),
        action,
        group: found.group,
        members,
        chosen: found.member.as_ref().map(|member| member_view(member, names)),
        router: told.as_ref().map(|told| FibToldView {
            prefix: told.prefix,
            action: told_action(&told.action).into(),
            source: word(told.source).into(),
        }),
        kernel: kernel_view(kernel, names),
        disagreements: disagreements(&found, told.as_ref(), kernel, &world),
    })
}

/// Whether speaker, router, eBPF FIB and kernel hold the same. `repair` has each told again: the router by the speaker and by
/// the kernel, eBPF by the router, the kernel of what it is to have of ours.
pub(super) async fn audit(live: &Live, repair: bool) -> Result<FibAuditView, String> {
    if repair {
        live.router.read_kernel().await;
        live.router.tell_again().await;
    }
    let place = live.place_to_audit().await?;
    let audit = live
        .dataplane
        .with(move |owned| {
            let audit = owned.dataplane.fib_audit(repair);
            drop(place);
            audit
        })
        .await?;
    let (sides, differences) = compare(live).await?;
    let Differences { selected, told, kernel } = differences;
    let counts = [selected.len(), told.len(), kernel.len()];
    let [not_as_selected, not_as_told, not_as_kernel] = counts;
    let sentences = selected.into_values().chain(told.into_values()).chain(kernel.into_values());
    let mut findings = memory_findings(&audit);
    findings.extend(sentences.take(FINDINGS));
    findings.truncate(FINDINGS);
    Ok(FibAuditView {
        intact: audit.is_clean() && counts == [0; 3],
        repaired: repair && !audit.is_clean(),
        routes: audit.routes,
        groups: audit.groups,
        wrong_stretches: audit.differences,
        wrong_groups: audit.wrong_groups,
        wrong_shortcuts: audit.wrong_shortcuts,
        not_as_selected,
        not_as_told,
        kernel_routes: sides.kernel.len(),
        not_as_kernel,
        findings,
    })
}

/// What differs now and a while later, since what changes meanwhile is not on all sides at once.
async fn compare(live: &Live) -> Result<(Sides, Differences), String> {
    let first = sides(live).await?;
    let before = first.differences();
    if before.is_empty() {
        return Ok((first, before));
    }
    drop(first);
    tokio::time::sleep(SETTLING).await;
    let again = sides(live).await?;
    let mut after = again.differences();
    after.retain(&before);
    Ok((again, after))
}

async fn sides(live: &Live) -> Result<Sides, String> {
    let world = world(live).await?;
    let kernel = lb_routing::kernel_routes().await.map_err(|error| error.to_string())?;
    let RouterTable { routes, groups, strays } =
        live.router.told().await.ok_or("the router has stopped")?;
    let (table, actions, left_out) = live
        .dataplane
        .with(|owned| {
            let table: Vec<_> = owned.dataplane.fib_table().collect();
            let action = |group| Some((group, owned.dataplane.fib_action(group)?));
            let actions = owned.dataplane.fib_groups().filter_map(action).collect();
            (table, actions, owned.dataplane.fib_left_out())
        })
        .await?;
    let prefix = |(address, len, group)| Some((IpNetwork::new(address, len).ok()?, group));
    Ok(Sides {
        strays,
        kernel,
        told: routes.into_iter().map(|told| (told.prefix, told)).collect(),
        groups,
        table: table.into_iter().filter_map(prefix).collect(),
        actions,
        left_out,
        world,
    })
}

async fn world(live: &Live) -> Result<World, String> {
    let neighbours = lb_routing::neighbours().await.map_err(|error| error.to_string())?;
    let links = live.router.links().borrow().clone();
    Ok(World {
        links,
        neighbours,
        policy_rules: !live.router.policy_rules().is_empty(),
        names: live.names(),
    })
}

fn memory_findings(audit: &Audit) -> Vec<String> {
    let told = audit.told.iter().map(|difference| {
        let lb_dataplane::fib::Difference { first, last, wanted, found } = difference;
        format!("{first} to {last}: packets meet group {found}, the routes say group {wanted}")
    });
    told.collect()
}

/// Where three answers differ.
fn disagreements(
    found: &FibLookup,
    told: Option<&Told>,
    kernel: &KernelAnswer,
    world: &World,
) -> Vec<String> {
    let mut all = Vec::new();
    if !found.intact {
        let remedy = "`lbctl doctor fib --repair` writes it again";
        all.push(format!("the memory that packets read is not as eBPF's routes say: {remedy}"));
    }
    if found.left_out {
        let remedy = "`lbctl doctor` says what to raise";
        let where_to = match &found.action {
            Some(Action::NoRoom) => "are dropped, since the kernel does not have that route",
            _ => "go to the kernel",
        };
        all.push(format!("eBPF has no room for a route near it, so packets {where_to}: {remedy}"));
        return all;
    }
    let route = found.route.and_then(|(prefix, len)| IpNetwork::new(prefix, len).ok());
    if route != told.map(|told| told.prefix) {
        let prefix = |prefix: Option<IpNetwork>| {
            prefix.map_or("no route".to_owned(), |prefix| prefix.to_string())
        };
        let (has, said) = (prefix(route), prefix(told.map(|told| told.prefix)));
        all.push(format!("eBPF has {has}, the router told {said}"));
    } else if let (Some(action), Some(told)) = (&found.action, told)
        && !is_as_told(action, &told.action)
    {
        let remedy = "`lbctl doctor fib --repair` has the router tell it again";
        all.push(format!(
            "eBPF does something else with its packets than the router told: {remedy}"
        ));
    }
    all.extend(against_kernel(found, told, kernel, world));
    all
}

/// Where the kernel would send packets elsewhere; what goes to it anyway is its own business.
fn against_kernel(
    found: &FibLookup,
    told: Option<&Told>,
    kernel: &KernelAnswer,
    world: &World,
) -> Option<String> {
    let (route, kind) = match kernel {
        KernelAnswer::Route { prefix, next_hops } if next_hops.is_empty() => {
            (Some(*prefix), KernelRouteKind::Kernel)
        }
        KernelAnswer::Route { prefix, next_hops } => {
            (Some(*prefix), KernelRouteKind::Unicast(next_hops.clone()))
        }
        KernelAnswer::Refuses(_) => (None, KernelRouteKind::Blackhole),
    };
    let action = found.action.as_ref().filter(|action| **action != Action::Kernel)?;
    // What the kernel is not to have, it answers by a shorter route or by none.
    let is_apart = told.is_some_and(|told| {
        !told.in_kernel && route.is_none_or(|route| route.prefix() < told.prefix.prefix())
    });
    if is_apart && told.is_some_and(|told| told.source == Source::Bgp) {
        return None;
    }
    world.differs(&kind, action, false)
}

fn kernel_view(answer: &KernelAnswer, names: &Names) -> KernelRouteView {
    match answer {
        KernelAnswer::Route { prefix, next_hops } => KernelRouteView {
            prefix: Some(*prefix),
            next_hops: next_hops
                .iter()
                .map(|KernelNextHop { ifindex, gateway, .. }| way(*ifindex, *gateway, names))
                .collect(),
            refuses: None,
        },
        KernelAnswer::Refuses(why) => {
            KernelRouteView { prefix: None, next_hops: Vec::new(), refuses: Some(why.clone()) }
        }
    }
}

fn way(ifindex: u32, gateway: Option<IpAddr>, names: &Names) -> String {
    let name = name(ifindex, names);
    match gateway {
        Some(gateway) => format!("via {gateway} dev {name}"),
        None => format!("dev {name}"),
    }
}

fn name(ifindex: u32, names: &Names) -> String {
    names.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"))
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Kernel => "kernel",
        Source::Bgp => "bgp",
        Source::Static => "static",
        Source::Neighbour => "neighbour",
    }
}

fn told_action(action: &lb_routing::Action) -> &'static str {
    match action {
        lb_routing::Action::Forward(_) => "forward",
        lb_routing::Action::Kernel => "kernel",
        lb_routing::Action::Blackhole => "blackhole",
    }
}

fn action_view(action: &Action, names: &Names) -> (String, Vec<FibMemberView>) {
    let (action, members): (_, &[Member]) = match action {
        Action::Forward(members) => ("forward", members),
        Action::Kernel => ("kernel", &[]),
        Action::Blackhole => ("blackhole", &[]),
        Action::NoRoom => ("no-room", &[]),
    };
    (action.into(), members.iter().map(|member| member_view(member, names)).collect())
}

/// A route as people see it.
pub(super) fn view(route: &FibRoute, source: Option<Source>, names: &Names) -> FibEntry {
    let (action, members) = action_view(&route.action, names);
    let prefix = IpNetwork::new(route.prefix, route.len).unwrap_or_else(|_| route.prefix.into());
    let forwards = match route.action {
        Action::Forward(_) => {
            Condition::new("Forwards", true, "Forward", "packets go on without the kernel")
        }
        Action::Kernel => {
            Condition::new("Forwards", false, "Kernel", "packets are handed over to the kernel")
        }
        Action::Blackhole => Condition::new("Forwards", false, "Blackhole", "packets are dropped"),
        Action::NoRoom => {
            let why = "packets are dropped: there is no room for the route, and the kernel does not have it";
            Condition::new("Forwards", false, "NoRoom", why)
        }
    };
    FibEntry {
        metadata: SeenMetadata::of(prefix.to_string()),
        spec: FibSpec { prefix },
        status: FibStatus {
            conditions: vec![forwards],
            action,
            source: source.map_or("previous", word).into(),
            members,
        },
    }
}

fn member_view(member: &Member, names: &Names) -> FibMemberView {
    FibMemberView {
        gateway: member.gateway,
        interface: name(member.ifindex, names),
        mac: member.destination_mac.map(super::mac),
    }
}
