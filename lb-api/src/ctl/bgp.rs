//! Sessions and paths, as network engineers are used to see them.

use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_api_types::bgp::Global;
use lb_api_types::peer::Peer;
use lb_api_types::view::{
    Appliance, BgpRoute, Explanation, HearerView, ListenView, PeerSettings, PeerView, Status,
};
use serde_json::Value;

use super::CtlError;
use super::arguments::{About, Format, RoutesOf};
use super::client::{Client, segment};
use super::show::{all, json, pages, typed, yaml};
use super::table::{columns, duration, or_dash, table};

/// Routes that are listed at most.
const MAX_LISTED: u32 = 100_000;

/// One line per neighbour, below who we are.
pub(super) async fn summary(client: &Client, format: Format) -> Result<String, CtlError> {
    let value = client.get("bgp/peers").await?;
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table | Format::Wide | Format::Name => {
            let appliance: Appliance = typed(client.get("status").await?)?;
            let global: Global = typed(client.get("bgp/global").await?)?;
            let listening = global.status.map(|status| status.listening).unwrap_or_default();
            Ok(summary_page(&appliance.status, &sessions(value)?, &listening))
        }
    }
}

fn summary_page(status: &Status, peers: &[PeerView], listening: &[ListenView]) -> String {
    let row = |peer: &PeerView| {
        // As FRR and others show it: the prefixes where there is a session, the state where there is none.
        let state = match peer.state.as_str() {
            "Established" => peer.prefixes_received.to_string(),
            state if peer.settings.as_ref().is_some_and(|it| it.shutdown) => {
                format!("{state} (Admin)")
            }
            state => state.to_owned(),
        };
        let mark = if peer.dynamic.is_some() { "*" } else { "" };
        [
            format!("{mark}{}", peer.address),
            peer.asn.to_string(),
            peer.messages_received.to_string(),
            peer.messages_sent.to_string(),
            duration(peer.since_secs),
            state,
            peer.prefixes_advertised.to_string(),
            peer.name.clone(),
        ]
    };
    let up = peers.iter().filter(|peer| peer.state == "Established").count();
    let heading =
        ["NEIGHBOR", "AS", "MSGRCVD", "MSGSENT", "UP/DOWN", "STATE/PFXRCD", "PFXSNT", "NAME"];
    let mut page = format!(
        "BGP router identifier {}, local AS number {}\n{up} of {} sessions Established\n\n{}",
        status.router_id,
        status.asn,
        peers.len(),
        table(heading, &peers.iter().map(row).collect::<Vec<_>>())
    );
    for ListenView { group, limit, neighbors, refused, wrong_as, .. } in listening {
        let _infallible = writeln!(
            page,
            "\n* came by itself, by the ranges of peer group {group}: {neighbors} of {limit} at most, {refused} connections refused, {wrong_as} for their AS number"
        );
    }
    page
}

/// Everything that is known of the neighbours, or of the one with a name or address.
pub(super) async fn neighbours(
    client: &Client,
    name: Option<&str>,
    format: Format,
) -> Result<String, CtlError> {
    let mut value = client.get("bgp/peers").await?;
    if let (Some(name), Some(all)) = (name, value.get_mut("items").and_then(Value::as_array_mut)) {
        all.retain(|peer| peer["metadata"]["name"] == name || peer["spec"]["address"] == name);
        if all.is_empty() {
            return Err(CtlError::Other(format!(
                "there is no neighbour {name}: `lbctl get peers` lists them"
            )));
        }
    }
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table | Format::Wide | Format::Name => neighbour_pages(value),
    }
}

/// A page for each of listed neighbours.
pub(super) fn neighbour_pages(value: Value) -> Result<String, CtlError> {
    let pages: Vec<_> = sessions(value)?.iter().map(neighbour).collect();
    Ok(pages.join("\n"))
}

/// The sessions of listed neighbours, or of one.
pub(super) fn sessions(value: Value) -> Result<Vec<PeerView>, CtlError> {
    let peers: Vec<Peer> = all(value)?;
    Ok(peers.into_iter().filter_map(|peer| peer.status).collect())
}

/// A neighbour's routes, all pages of them.
pub(super) async fn routes_of(
    client: &Client,
    name: &str,
    (which, about): (RoutesOf, &About),
    format: Format,
) -> Result<String, CtlError> {
    let peers: Vec<Peer> = all(client.get("bgp/peers").await?)?;
    let is = |peer: &&Peer| peer.metadata.name == name || peer.spec.address.to_string() == name;
    let peer = peers.iter().find(is).ok_or_else(|| {
        CtlError::Other(format!("there is no neighbour {name}: `lbctl get peers` lists them"))
    })?;
    let table = match which {
        RoutesOf::AdvertisedRoutes => "adj-rib-out",
        RoutesOf::ReceivedRoutes => "adj-rib-in",
        RoutesOf::Routes => "usable",
    };
    let asked = format!("table={table}&neighbor={}", peer.spec.address);
    let text = listed(client, asked, about, format).await?;
    let is_table = matches!(format, Format::Table | Format::Wide | Format::Name);
    let misses = |it: &&PeerView| {
        it.refused_not_kept > 0 || it.prefixes_rejected == 0 && it.routes_refused > 0
    };
    let refused = peer.status.as_ref().filter(misses);
    match refused.filter(|_| is_table && which == RoutesOf::ReceivedRoutes) {
        Some(peer) => Ok(format!(
            "{text}import has refused {} routes since the start, not all of which are kept to be shown: see keep_rejected\n",
            peer.routes_refused
        )),
        None => Ok(text),
    }
}

/// Everybody's routes that something holds of; `selected`: those of the Loc-RIB.
pub(super) async fn routes_about(
    client: &Client,
    selected: bool,
    about: &About,
    format: Format,
) -> Result<String, CtlError> {
    let table = if selected { "loc-rib" } else { "usable" };
    listed(client, format!("table={table}"), about, format).await
}

/// What is asked, up to a bound: a table is longer than anybody reads, and is in memory as a whole.
async fn listed(
    client: &Client,
    asked: String,
    about: &About,
    format: Format,
) -> Result<String, CtlError> {
    let within = about.within.iter().map(|prefix| ("within", prefix.to_string()));
    let communities = about.community.iter().map(|it| ("community", it.clone()));
    let paths = about.as_path.iter().map(|it| ("asPath", it.clone()));
    let about = within.chain(communities).chain(paths);
    let about = about.map(|(name, value)| format!("{name}={}", segment(&value)));
    let query = std::iter::once(asked).chain(about).collect();
    let value = pages(client, "bgp/routes", query, Some(MAX_LISTED)).await?;
    if value["next"].is_string() {
        eprintln!(
            "there are more than {MAX_LISTED}: say which with --within, --community or --as-path"
        );
    }
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table | Format::Wide | Format::Name => {
            let all: Vec<BgpRoute> = all(value)?;
            Ok(format!("{}\n{} routes\n", routes(&all, format == Format::Wide), all.len()))
        }
    }
}

/// A destination's paths, and who hears of the best one.
pub(super) async fn explain(
    client: &Client,
    destination: &str,
    format: Format,
) -> Result<String, CtlError> {
    let value = client.get(&format!("bgp/explain?prefix={}", asked(destination)?)).await?;
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table | Format::Wide | Format::Name => Ok(explained(&typed(value)?)),
    }
}

/// What is neither a prefix nor an address may have been meant to be a word.
fn asked(destination: &str) -> Result<String, CtlError> {
    let prefix = destination.parse::<IpNetwork>().ok().filter(|it| it.ip() == it.network());
    if prefix.is_none() && destination.parse::<IpAddr>().is_err() {
        return Err(CtlError::Other(format!(
            "`{destination}` is not known: say summary, neighbors, routes, an address, or a prefix without host bits such as 10.0.0.0/8"
        )));
    }
    Ok(segment(destination))
}

fn explained(explanation: &Explanation) -> String {
    if explanation.paths.is_empty() {
        return format!(
            "there is no path to {}: no neighbour tells it, or what import rejects is not kept (keep_rejected); of a VIP's address, `lbctl describe vip` says why it is not advertised\n",
            explanation.prefix
        );
    }
    let row = |hearer: &HearerView| {
        let heard = match (&hearer.withheld, hearer.others) {
            (None, 0) => "yes".to_owned(),
            (None, others) => format!("yes, and of {others} others"),
            (Some(_), 0) => "no".to_owned(),
            (Some(_), others) => format!("no, but of {others} others"),
        };
        [hearer.address.to_string(), heard, or_dash(hearer.withheld.clone())]
    };
    let rows: Vec<_> = explanation.neighbors.iter().map(row).collect();
    let why = |route: &BgpRoute| {
        let spec = &route.spec;
        [or_dash(spec.peer.map(|peer| peer.to_string())), or_dash(route.status.why.clone())]
    };
    let whys: Vec<_> = explanation.paths.iter().map(why).collect();
    format!(
        "{}\n{}\n{}",
        routes(&explanation.paths, true),
        table(["PEER", "WHY"], &whys),
        table(["NEIGHBOR", "HEARS OF IT", "WHAT KEEPS IT"], &rows)
    )
}

fn neighbour(peer: &PeerView) -> String {
    let mut text = format!("BGP neighbor {}, remote AS {}\n", peer.address, peer.asn);
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "  {:<14}{value}", format!("{name}:"));
    };
    line("Name", peer.name.clone());
    if let Some(group) = &peer.dynamic {
        line("Dynamic", format!("came by itself, by the ranges of peer group {group}"));
    }
    line("State", format!("{} for {}", peer.state, duration(peer.since_secs)));
    line("Router id", or_dash(peer.router_id.map(|id| id.to_string())));
    if let Some(seconds) = peer.stale_secs {
        line("Restarting", format!("its routes stay for {seconds} s more at most"));
    }
    line("Settings", or_dash(peer.settings.as_ref().map(settings)));
    line("Hold time", format!("{} s", peer.hold_time_secs));
    line(
        "Prefixes",
        format!("{} received, {} advertised", peer.prefixes_received, peer.prefixes_advertised),
    );
    line("Messages", format!("{} received, {} sent", peer.messages_received, peer.messages_sent));
    for (way, counts) in [("Received", &peer.received), ("Sent", &peer.sent)] {
        let counts = counts.by_type().map(|(kind, count)| format!("{count} {kind}"));
        line(way, counts.join(", "));
    }
    let (refused, kept) = (peer.routes_refused, peer.prefixes_rejected);
    line("Refused", format!("{refused} routes since the start, {kept} kept to be shown"));
    let last = Some(&peer.last_malformed).filter(|last| !last.is_empty());
    let last = last.map_or_else(String::new, |last| format!("; the last: {last}"));
    line("Malformed", format!("{} UPDATEs{last}", peer.malformed));
    line("Agreed on", or_dash(Some(peer.capabilities.join(", ")).filter(|it| !it.is_empty())));
    line("Last error", or_dash(Some(peer.last_error.clone())));
    text
}

/// What is not as usual in how a neighbour is set.
fn settings(told: &PeerSettings) -> String {
    let words = [
        told.shutdown.then(|| "shut down".to_owned()),
        told.graceful_shutdown.then(|| "drained (GRACEFUL_SHUTDOWN)".to_owned()),
        told.passive.then(|| "passive".to_owned()),
        (told.port != 179).then(|| format!("port {}", told.port)),
        told.source.map(|source| format!("from {source}")),
        told.multihop.map(|hops| format!("multihop {hops}")),
        told.gtsm_hops.map(|hops| format!("GTSM within {hops} hops")),
        told.md5.then(|| "MD5".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Columns of `get peers`.
pub(super) fn peers(peers: &[PeerView], wide: bool) -> String {
    let row = |peer: &PeerView| {
        [
            peer.name.clone(),
            peer.address.to_string(),
            peer.asn.to_string(),
            peer.state.clone(),
            duration(peer.since_secs),
            peer.prefixes_received.to_string(),
            peer.prefixes_advertised.to_string(),
            or_dash(Some(peer.last_error.clone())),
        ]
    };
    let heading =
        ["NAME", "ADDRESS", "AS", "STATE", "SINCE", "RECEIVED", "ADVERTISED", "LAST ERROR"];
    if !wide {
        return table(heading, &peers.iter().map(row).collect::<Vec<_>>());
    }
    let rows = peers.iter().map(|peer| {
        let [name, address, asn, state, since, received, advertised, error] = row(peer);
        let id = or_dash(peer.router_id.map(|id| id.to_string()));
        let hold_time = format!("{}s", peer.hold_time_secs);
        let messages = format!("{}/{}", peer.messages_received, peer.messages_sent);
        [name, address, asn, state, since, received, advertised, id, hold_time, messages, error]
    });
    let [name, address, asn, state, since, received, advertised, error] = heading;
    let heading = [
        name,
        address,
        asn,
        state,
        since,
        received,
        advertised,
        "ROUTER ID",
        "HOLD TIME",
        "MESSAGES IN/OUT",
        error,
    ];
    table(heading, &rows.collect::<Vec<_>>())
}

/// Columns of `get routes`, the best path of each prefix first; `wide`: with their communities.
pub(super) fn routes(routes: &[BgpRoute], wide: bool) -> String {
    let refused = routes.iter().any(|route| route.status.rejected.is_some());
    let row = |route: &&BgpRoute| {
        let BgpRoute { spec, status: route, .. } = route;
        let mark = match (route.best, route.multipath, &route.rejected) {
            (true, ..) => "*>",
            (false, true, _) => "*=",
            (false, false, None) => "*",
            (false, false, Some(_)) => "x",
        };
        let mark = if route.stale { format!("S{mark}") } else { mark.to_owned() };
        let mut row = vec![
            mark,
            spec.prefix.to_string(),
            or_dash(route.next_hop.map(|hop| hop.to_string())),
            or_dash(spec.peer.map(|peer| peer.to_string())),
            or_dash(route.local_pref.map(|value| value.to_string())),
            or_dash(route.med.map(|value| value.to_string())),
            route.origin.clone(),
            route.as_path.clone(),
        ];
        row.extend(wide.then(|| or_dash(Some(route.communities.join(" ")))));
        row.extend(refused.then(|| or_dash(route.rejected.clone())));
        row
    };
    let mut routes: Vec<_> = routes.iter().collect();
    let rank = |route: &&BgpRoute| (route.spec.prefix, !route.status.best, !route.status.multipath);
    routes.sort_by_key(rank);
    let rows: Vec<_> = routes.iter().map(row).collect();
    let mut heading =
        vec!["", "PREFIX", "NEXT HOP", "PEER", "LOCAL PREF", "MED", "ORIGIN", "AS PATH"];
    heading.extend(wide.then_some("COMMUNITIES"));
    heading.extend(refused.then_some("NOT USED, AS"));
    columns(&heading, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_show_bgp_is_a_destination_or_the_error_says_what_is_known() {
        assert_eq!(asked("10.0.0.0/8").map_err(|_| ()), Ok("10.0.0.0%2F8".to_owned()));
        assert_eq!(asked("192.0.2.1").map_err(|_| ()), Ok("192.0.2.1".to_owned()));
        for wrong in ["10.0.0.1/8", "sumary", ""] {
            let error = asked(wrong).unwrap_err().to_string();
            assert!(error.contains("say summary, neighbors, routes"), "{wrong}: {error}");
        }
    }

    #[test]
    fn who_hears_of_another_path_only_is_shown_what_keeps_the_best_one() {
        let hearer = |withheld: Option<&str>, others| HearerView {
            address: [192, 0, 2, 1].into(),
            withheld: withheld.map(str::to_owned),
            others,
        };
        let route = serde_json::json!({
            "metadata": { "name": "10.0.0.0/8@local" }, "spec": { "prefix": "10.0.0.0/8", "peer": null },
            "status": {
                "conditions": [], "next_hop": null, "as_path": "", "origin": "igp", "local_pref": null,
                "med": null, "best": true, "multipath": true
            }
        });
        let shown = |hearer| {
            explained(&Explanation {
                prefix: "10.0.0.0/8".parse().unwrap(),
                paths: vec![serde_json::from_value(route.clone()).unwrap()],
                neighbors: vec![hearer],
            })
        };
        assert!(shown(hearer(Some("a rule"), 1)).contains("no, but of 1 others  a rule"));
        assert!(shown(hearer(None, 2)).contains("yes, and of 2 others"));
    }

    #[test]
    fn a_route_that_is_not_used_says_why_in_a_column_of_its_own() {
        let route = |rejected: Option<&str>| {
            let value = serde_json::json!({
                "metadata": { "name": "10.0.0.0/8@192.0.2.1" },
                "spec": { "prefix": "10.0.0.0/8", "peer": "192.0.2.1" },
                "status": {
                    "conditions": [], "next_hop": "192.0.2.1", "as_path": "7", "origin": "igp", "local_pref": null,
                    "med": null, "best": false, "multipath": false, "rejected": rejected,
                    "communities": ["65001:7", "no-export"]
                }
            });
            serde_json::from_value::<BgpRoute>(value).unwrap()
        };
        assert!(!routes(&[route(None)], false).contains("NOT USED"));
        let both = [route(Some("our AS is in its path")), route(None)];
        let shown = routes(&both, false);
        assert!(shown.contains("NOT USED, AS") && shown.contains("our AS is in its path"));
        assert!(!shown.contains("COMMUNITIES") && !shown.contains("65001:7"));
        let shown = routes(&both, true);
        assert!(shown.contains("COMMUNITIES") && shown.contains("65001:7 no-export"), "{shown}");
    }

    #[test]
    fn a_summary_shows_prefixes_where_there_is_a_session_and_the_state_where_there_is_none() {
        let peer = |name: &str, state: &str| {
            let value = serde_json::json!({
                "name": name, "address": "192.0.2.1", "asn": 65001, "state": state, "since_secs": 67,
                "router_id": null, "hold_time_secs": 90, "prefixes_received": 4, "prefixes_advertised": 1,
                "messages_received": 11, "messages_sent": 12, "last_error": ""
            });
            serde_json::from_value::<PeerView>(value).unwrap()
        };
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "1", "uptime_secs": 1, "router_id": "192.0.2.2", "asn": 65000, "interfaces": [], "reasons": []
        }))
        .unwrap();
        let text = summary_page(&status, &[peer("a", "Established"), peer("b", "Active")], &[]);
        assert!(
            text.starts_with("BGP router identifier 192.0.2.2, local AS number 65000\n1 of 2 ")
        );
        let words: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(words[4], ["192.0.2.1", "65001", "11", "12", "1m07s", "4", "1", "a"]);
        assert_eq!(words[5], ["192.0.2.1", "65001", "11", "12", "1m07s", "Active", "1", "b"]);
        assert!(neighbour(&peer("a", "Active")).contains("State:        Active for 1m07s"));
        let told: PeerSettings = serde_json::from_value(serde_json::json!({
            "port": 1790, "source": null, "passive": true, "multihop": null, "gtsm_hops": 2, "md5": true,
            "tcp_user_timeout_secs": null, "send_hold_time_secs": 480, "hold_time_secs": 90, "connect_retry_secs": 5,
            "restart_time_secs": 120, "keepalive_secs": null, "delay_open_secs": 0, "idle_hold_secs": 1,
            "advertisement_interval_secs": 0, "shutdown": true
        }))
        .unwrap();
        let shut = PeerView { settings: Some(told), ..peer("d", "Idle") };
        assert!(summary_page(&status, std::slice::from_ref(&shut), &[]).contains("Idle (Admin)"));
        assert!(
            neighbour(&shut).contains("shut down, passive, port 1790, GTSM within 2 hops, MD5")
        );
        let come = PeerView { dynamic: Some("nodes".into()), ..peer("c", "Established") };
        let listening = ListenView {
            group: "nodes".into(),
            ranges: vec!["192.0.2.0/24".parse().unwrap()],
            limit: 9,
            neighbors: 1,
            refused: 4,
            asns: Vec::new(),
            wrong_as: 5,
        };
        let text = summary_page(&status, std::slice::from_ref(&come), &[listening]);
        assert!(text.contains("\n*192.0.2.1"), "{text}");
        let refused = "group nodes: 1 of 9 at most, 4 connections refused, 5 for their AS number";
        assert!(text.contains(refused), "{text}");
        assert!(neighbour(&come).contains("Received:     0 open, 0 update, 0 notification"));
        assert!(neighbour(&come).contains("by the ranges of peer group nodes"));
    }
}
