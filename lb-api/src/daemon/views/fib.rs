//! The eBPF FIB as people see it, and whether router and kernel agree with it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_api_types::resource::Condition;
use lb_api_types::view::{
    FibAuditView, FibEntry, FibLookupView, FibMemberView, FibSpec, FibStatus, FibToldView,
    FibUsageView, KernelRouteView, SeenMetadata,
};
use lb_dataplane::fib::{Action, Audit, FibLookup, FibRoute, FibUsage, Member, Packet};
use lb_routing::{KernelAnswer, KernelNextHop, Source, Told};

use super::Live;

/// Interfaces' names by their indices.
type Names = HashMap<u32, String>;

/// Destinations for which an audit asks the kernel at most, spread over the table.
const ASKED: usize = 4096;
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
    let names = live.names();
    let (action, members) = match &found.action {
        Some(action) => action_view(action, &names),
        None => ("none".into(), Vec::new()),
    };
    Ok(FibLookupView {
        destination: packet.destination,
        prefix: found.route.and_then(|(prefix, len)| IpNetwork::new(prefix, len).ok()),
        action,
        group: found.group,
        members,
        chosen: found.member.as_ref().map(|member| member_view(member, &names)),
        router: told.as_ref().map(|told| FibToldView {
            prefix: told.prefix,
            action: told_action(&told.action).into(),
            source: word(told.source).into(),
        }),
        kernel: kernel_view(kernel, &names),
        disagreements: disagreements(&found, told.as_ref(), kernel, &names),
    })
}

/// Whether the eBPF FIB holds what router and kernel have.
pub(super) async fn audit(live: &Live, repair: bool) -> Result<FibAuditView, String> {
    let told = live.router.told().await.ok_or("the router has stopped")?;
    let (audit, table) = live
        .dataplane
        .with(move |owned| {
            let audit = owned.dataplane.fib_audit(repair);
            (audit, owned.dataplane.fib_table().collect::<Vec<_>>())
        })
        .await?;
    let names = live.names();
    let mut findings = memory_findings(&audit);
    let not_as_told = compare_with_router(&told, &table, &mut findings);

    let step = told.len().div_ceil(ASKED).max(1);
    let asked: Vec<IpAddr> = told.iter().step_by(step).map(|(prefix, _)| inside(*prefix)).collect();
    let answers = lb_routing::ask(&asked).await.map_err(|error| error.to_string())?;
    let mut not_as_kernel = 0;
    for (destination, answer) in asked.iter().zip(&answers) {
        let packet = Packet {
            source: unspecified(*destination),
            destination: *destination,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
        };
        let found = live.dataplane.with(move |owned| owned.dataplane.fib_lookup(&packet)).await?;
        let told = live.router.lookup(*destination).await;
        if let Some(finding) = against_kernel(&found, told.as_ref(), answer, &names) {
            not_as_kernel += 1;
            findings.push(format!("{destination}: {finding}"));
        }
    }
    findings.truncate(FINDINGS);
    Ok(FibAuditView {
        intact: audit.is_clean() && not_as_told == 0 && not_as_kernel == 0,
        repaired: repair && !audit.is_clean(),
        routes: audit.routes,
        groups: audit.groups,
        wrong_stretches: audit.differences,
        wrong_groups: audit.wrong_groups,
        wrong_shortcuts: audit.wrong_shortcuts,
        not_as_told,
        asked_of_kernel: asked.len(),
        not_as_kernel,
        findings,
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
    told: &[(IpNetwork, u32)],
    table: &[(IpAddr, u8, u32)],
    findings: &mut Vec<String>,
) -> usize {
    let mut left: HashMap<(IpAddr, u8), u32> =
        table.iter().map(|(prefix, len, group)| ((*prefix, *len), *group)).collect();
    let mut count = 0;
    for (prefix, group) in told {
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
    names: &Names,
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
    all.extend(against_kernel(found, told, kernel, names));
    all
}

/// Where the kernel would send packets elsewhere; what goes to it anyway is its own business.
fn against_kernel(
    found: &FibLookup,
    told: Option<&Told>,
    kernel: &KernelAnswer,
    names: &Names,
) -> Option<String> {
    let ours: BTreeSet<(u32, Option<IpAddr>)> = match found.action.as_ref()? {
        Action::Kernel => return None,
        Action::Blackhole => BTreeSet::new(),
        Action::Forward(members) => {
            members.iter().map(|member| (member.ifindex, member.gateway)).collect()
        }
    };
    let theirs: BTreeSet<(u32, Option<IpAddr>)> = match kernel {
        KernelAnswer::Refuses(_) => BTreeSet::new(),
        KernelAnswer::Route { next_hops, .. } => {
            next_hops.iter().map(|hop| (hop.ifindex, hop.gateway)).collect()
        }
    };
    let is_bgp = told.is_some_and(|told| told.source == Source::Bgp);
    let is_shorter = matches!((kernel, told), (KernelAnswer::Route { prefix, .. }, Some(told))
        if prefix.prefix() < told.prefix.prefix());
    let refuses = matches!(kernel, KernelAnswer::Refuses(_));
    // A BGP route that is not installed in the kernel is missing there on purpose.
    // A gateway that does not answer is left out in eBPF while others do.
    let is_part = !ours.is_empty() && ours.is_subset(&theirs);
    if ours == theirs || is_part || (is_bgp && (is_shorter || refuses)) {
        return None;
    }
    let list = |ways: &BTreeSet<(u32, Option<IpAddr>)>| {
        let ways: Vec<String> = ways.iter().map(|(link, via)| way(*link, *via, names)).collect();
        if ways.is_empty() { "nowhere".to_owned() } else { ways.join(", ") }
    };
    Some(format!("eBPF sends packets {}, the kernel {}", list(&ours), list(&theirs)))
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

/// An address of a prefix that is a host's: not the network's own where there is another.
fn inside(prefix: IpNetwork) -> IpAddr {
    match (prefix, prefix.network()) {
        (IpNetwork::V4(v4), IpAddr::V4(address)) if v4.prefix() < 31 => {
            std::net::Ipv4Addr::from_bits(address.to_bits() | 1).into()
        }
        (IpNetwork::V6(v6), IpAddr::V6(address)) if v6.prefix() < 127 => {
            std::net::Ipv6Addr::from_bits(address.to_bits() | 1).into()
        }
        (_, address) => address,
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
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
