//! The eBPF FIB as people see it, and whether router and kernel agree with it.

mod against;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use lb_api_types::resource::Condition;
use lb_api_types::view::{
    FibAuditView, FibEntry, FibLookupView, FibMemberView, FibSpec, FibStatus, FibToldView,
    FibUsageView, KernelRouteView, SeenMetadata,
};
use lb_dataplane::fib::{Action, Audit, FibLookup, FibRoute, FibUsage, Member, Packet};
use lb_routing::{KernelAnswer, KernelNextHop, KernelRouteKind, Source, Told, ToldRoute};

use self::against::{Sides, World};
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
    let FibUsage { updates, refused, left_out, .. } = *usage;
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

/// Whether the eBPF FIB holds what router and kernel have.
pub(super) async fn audit(live: &Live, repair: bool) -> Result<FibAuditView, String> {
    if repair {
        live.router.read_kernel().await;
    }
    let told = live.router.told().await.ok_or("the router has stopped")?;
    let place = live.place_to_audit().await?;
    let (audit, table) = live
        .dataplane
        .with(move |owned| {
            let audit = owned.dataplane.fib_audit(repair);
            let table = owned.dataplane.fib_table().collect::<Vec<_>>();
            drop(place);
            (audit, table)
        })
        .await?;
    let mut findings = memory_findings(&audit);
    let not_as_told = compare_with_router(&told, &table, &mut findings);
    let (kernel_routes, not_as_kernel) = compare_with_kernel(live).await?;
    let differ = not_as_kernel.len();
    findings.extend(not_as_kernel);
    findings.truncate(FINDINGS);
    Ok(FibAuditView {
        intact: audit.is_clean() && not_as_told == 0 && differ == 0,
        repaired: repair && !audit.is_clean(),
        routes: audit.routes,
        groups: audit.groups,
        wrong_stretches: audit.differences,
        wrong_groups: audit.wrong_groups,
        wrong_shortcuts: audit.wrong_shortcuts,
        not_as_told,
        kernel_routes,
        not_as_kernel: differ,
        findings,
    })
}

/// How many prefixes the kernel has routes to, and one sentence for each that differs: now and a while later, since what
/// changes meanwhile is not at both sides at once.
async fn compare_with_kernel(live: &Live) -> Result<(usize, Vec<String>), String> {
    let sides = sides(live).await?;
    let first = sides.differences();
    if first.is_empty() {
        return Ok((sides.kernel.len(), Vec::new()));
    }
    tokio::time::sleep(SETTLING).await;
    let mut again = self::sides(live).await?.differences();
    again.retain(|prefix, _| first.contains_key(prefix));
    Ok((sides.kernel.len(), again.into_values().collect()))
}

async fn sides(live: &Live) -> Result<Sides, String> {
    let world = world(live).await?;
    let kernel = lb_routing::kernel_routes().await.map_err(|error| error.to_string())?;
    let told = live.router.told().await.ok_or("the router has stopped")?;
    let (table, actions) = live
        .dataplane
        .with(|owned| {
            let table: Vec<_> = owned.dataplane.fib_table().collect();
            let groups: BTreeSet<u32> = table.iter().map(|(_, _, group)| *group).collect();
            let action = |group| Some((group, owned.dataplane.fib_action(group)?));
            (table, groups.into_iter().filter_map(action).collect())
        })
        .await?;
    let prefix = |(address, len, group)| Some((IpNetwork::new(address, len).ok()?, group));
    Ok(Sides {
        kernel,
        told: told.into_iter().map(|told| (told.prefix, told)).collect(),
        table: table.into_iter().filter_map(prefix).collect(),
        actions,
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

/// Routes that the router told and eBPF lacks or has under another group, and those that it has beyond.
fn compare_with_router(
    told: &[ToldRoute],
    table: &[(IpAddr, u8, u32)],
    findings: &mut Vec<String>,
) -> usize {
    let mut left: HashMap<(IpAddr, u8), u32> =
        table.iter().map(|(prefix, len, group)| ((*prefix, *len), *group)).collect();
    let mut count = 0;
    for ToldRoute { prefix, group, .. } in told {
        let there = left.remove(&(prefix.network(), prefix.prefix()));
        if there == Some(*group) {
            continue;
        }
        count += 1;
        findings.push(match there {
            None => format!("{prefix}: the router told it, eBPF refused it or has yet to take it"),
            Some(_) => format!("{prefix}: eBPF has yet to take its new next hops"),
        });
    }
    for (prefix, len) in left.keys() {
        count += 1;
        findings.push(format!("{prefix}/{len}: eBPF has it, the router does not"));
    }
    count
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
        all.push(format!(
            "eBPF has no room for a route near it, so packets go to the kernel: {remedy}"
        ));
        return all;
    }
    let route = found.route.and_then(|(prefix, len)| IpNetwork::new(prefix, len).ok());
    if route != told.map(|told| told.prefix) {
        let prefix = |prefix: Option<IpNetwork>| {
            prefix.map_or("no route".to_owned(), |prefix| prefix.to_string())
        };
        let (has, said) = (prefix(route), prefix(told.map(|told| told.prefix)));
        all.push(format!("eBPF has {has}, the router told {said}"));
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
    world.differs(&kind, action, None)
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
