//! The section `bgp`: who we are, and our neighbours.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use lb_api_types::bgp::GlobalSpec;
use lb_api_types::config::{Bgp, Decision};
use lb_api_types::peer::{
    AsRange, BeyondLimit, BgpPeer, MaxPrefixes, PeerGroup, PeerOptions, PeerSpec,
};
use lb_api_types::policy::{BgpPolicy, Family};
use lb_api_types::resource::Tags;

use super::credential;
use super::named;
use super::policy::statement::FAMILIES;
use super::policy::{self, Way, chain};
use crate::read::{Cursor, Mistake, Object, Path, document};
use crate::resources::read_tags;

/// Neighbours at most.
pub(crate) const MAX_PEERS: usize = 1024;
/// AS numbers and ranges of them in a group at most.
const MAX_AS_RANGES: usize = 64;
/// Peer groups at most.
const MAX_GROUPS: usize = 256;

pub(super) fn bgp(cursor: &Cursor<'_>) -> Option<Bgp> {
    let own = ["labels", "owner", "sets", "policies", "peer_groups", "peers"];
    let section = cursor.object(&[GlobalSpec::FIELDS, &own].concat())?;
    let sets = section.field("sets").and_then(|list| policy::sets(&list)).unwrap_or_default();
    let policies = section.field("policies").and_then(|list| policy::policies(&list, &sets));
    let policies = policies.unwrap_or_default();
    let groups = section.field("peer_groups").and_then(|list| groups(&list, &policies));
    let peer_groups = groups.unwrap_or_default();
    let Tags { labels, owner } = read_tags(&section).unwrap_or_default();
    let all = Bgp {
        labels,
        owner,
        peers: section
            .field("peers")
            .and_then(|list| peers(&list, &policies, &peer_groups))
            .unwrap_or_default(),
        peer_groups,
        sets,
        policies,
        ..Bgp::default()
    };
    Some(all.with_global(global(&section)))
}

/// What is asked of BGP as a whole.
pub(crate) fn read_global(cursor: &Cursor<'_>) -> Option<GlobalSpec> {
    cursor.object(GlobalSpec::FIELDS).map(|fields| global(&fields))
}

/// The same where it stands among others.
pub(crate) fn global(fields: &Object<'_>) -> GlobalSpec {
    GlobalSpec {
        asn: fields.field("asn").and_then(|number| asn(&number)),
        router_id: fields.field("router_id").and_then(|id| router_id(&id)),
        cluster_id: fields.field("cluster_id").and_then(|id| cluster_id(&id)),
        decision: fields.field("decision").and_then(|it| decision(&it)),
        listen: fields.field("listen").and_then(|it| listen(&it)),
    }
}

/// What is wrong with a whole section, such as names of what is not there.
pub(crate) fn mistakes(section: &Bgp) -> Vec<Mistake> {
    match serde_json::to_value(section) {
        Ok(value) => document(&value, bgp).err().unwrap_or_default(),
        Err(error) => vec![Mistake { path: Path::default(), message: error.to_string() }],
    }
}

pub(super) fn asn(cursor: &Cursor<'_>) -> Option<u32> {
    usable_asn(cursor, cursor.number(0..=u32::MAX)?)
}

/// A number that some AS may have.
fn usable_asn(cursor: &Cursor<'_>, number: u32) -> Option<u32> {
    match number {
        // RFC 7607.
        0 => cursor.wrong("is 0, which no AS may use (RFC 7607): use 64512 to 65534 in private"),
        // RFC 6793 §9.
        23456 => cursor
            .wrong("is 23456 (AS_TRANS), which stands for others (RFC 6793): use the real number"),
        // RFC 7300.
        65535 | u32::MAX => cursor.wrong("is the last number, which is reserved (RFC 7300)"),
        number => Some(number),
    }
}

fn router_id(cursor: &Cursor<'_>) -> Option<Ipv4Addr> {
    let id = cursor.ipv4()?;
    if id.is_unspecified() {
        // RFC 6286 §2.1.
        return cursor.wrong("is 0.0.0.0, but a BGP identifier is not zero (RFC 6286): leave it out, or use one of this host's IPv4 addresses");
    }
    Some(id)
}

fn cluster_id(cursor: &Cursor<'_>) -> Option<Ipv4Addr> {
    let id = cursor.ipv4()?;
    if id.is_unspecified() {
        return cursor.wrong("is 0.0.0.0, which names no cluster: leave it out, or use the address that all reflectors of the cluster name");
    }
    Some(id)
}

fn decision(cursor: &Cursor<'_>) -> Option<Decision> {
    let object = cursor.object(&[
        "always_compare_med",
        "med_missing_as_worst",
        "compare_router_id",
        "max_paths",
        "max_paths_internal",
        "mixed_multipath",
    ])?;
    let usual = Decision::default();
    let flag = |field, usual| object.field(field).and_then(|it| it.boolean()).unwrap_or(usual);
    // As many members as a next-hop group of the FIB has.
    let paths = |field| object.field(field).and_then(|paths| paths.number(1..=256));
    Some(Decision {
        always_compare_med: flag("always_compare_med", usual.always_compare_med),
        med_missing_as_worst: flag("med_missing_as_worst", usual.med_missing_as_worst),
        compare_router_id: flag("compare_router_id", usual.compare_router_id),
        max_paths: paths("max_paths").unwrap_or(usual.max_paths),
        max_paths_internal: paths("max_paths_internal"),
        mixed_multipath: flag("mixed_multipath", usual.mixed_multipath),
    })
}

fn max_prefixes(cursor: &Cursor<'_>) -> Option<MaxPrefixes> {
    let object = cursor.object(&["limit", "warn_percent", "beyond", "restart_secs"])?;
    let limit = object.required("limit").and_then(|limit| limit.number(1..=u32::MAX));
    let words =
        [("end", BeyondLimit::End), ("warn", BeyondLimit::Warn), ("discard", BeyondLimit::Discard)];
    let beyond = object.field("beyond").and_then(|word| word.one_of(&words));
    let restart = object.field("restart_secs");
    if let Some(restart) = &restart
        && !matches!(beyond, None | Some(BeyondLimit::End))
    {
        restart.wrong::<()>(
            "says when a session begins again, but `beyond` lets it go on: remove one of the two",
        );
    }
    Some(MaxPrefixes {
        limit: limit?,
        warn_percent: object.field("warn_percent").and_then(|it| it.number(1..=100)),
        beyond,
        restart_secs: restart.and_then(|secs| secs.number(1..=86_400)),
    })
}

fn listen(cursor: &Cursor<'_>) -> Option<SocketAddr> {
    let listen = cursor.socket()?;
    if listen.port() == 0 {
        return cursor.wrong("has port 0, which neighbours cannot know: use 179");
    }
    Some(listen)
}

fn groups(cursor: &Cursor<'_>, policies: &[BgpPolicy]) -> Option<Vec<PeerGroup>> {
    let (mut names, mut ranges) = (HashSet::new(), HashMap::new());
    let groups = cursor.list(|cursor| {
        let (name, tags, object) = named::parts(cursor, PeerOptions::FIELDS, true)?;
        let name = name.and_then(|name| policy::unique(&name, &mut names));
        let options = options(&object, Some(policies));
        together(&object, &options);
        listening(&object, &options);
        let name = name?.to_owned();
        for range in options.listen_ranges.iter().flatten() {
            if let Some(first) = ranges.insert(*range, name.clone())
                && let Some(field) = object.field("listen_ranges")
            {
                return field.wrong(format!(
                    "has {range} of the group `{first}`: a neighbour is of one group, remove one of the two"
                ));
            }
        }
        Some(PeerGroup { name, tags, options })
    })?;
    policy::bounded(cursor, groups, MAX_GROUPS)
}

fn peers(
    cursor: &Cursor<'_>,
    policies: &[BgpPolicy],
    groups: &[PeerGroup],
) -> Option<Vec<BgpPeer>> {
    let (mut addresses, mut names) = (HashMap::new(), HashMap::new());
    let peers = cursor.list(|cursor| {
        let peer = peer(cursor, policies, groups)?;
        // People know a neighbour by its name, wherever it was made.
        let place = peer.name.as_ref().map_or_else(
            || cursor.path().to_string(),
            |name| format!("peer {name}"),
        );
        if let Some(first) = addresses.insert(peer.spec.address.to_canonical(), place) {
            let address = peer.spec.address;
            return cursor.wrong(format!(
                "has the address {address} of {first}: one neighbour has one session, remove one of the two"
            ));
        }
        let name = peer.title();
        if let Some(first) = names.insert(name.clone(), cursor.path().clone()) {
            return cursor.wrong(format!("has the name `{name}` of {first}: rename one of the two"));
        }
        Some(peer)
    })?;
    if peers.len() > MAX_PEERS {
        return cursor.wrong(format!("lists {} peers, but {MAX_PEERS} are the most", peers.len()));
    }
    Some(peers)
}

fn peer(cursor: &Cursor<'_>, policies: &[BgpPolicy], groups: &[PeerGroup]) -> Option<BgpPeer> {
    let fields = [&["address", "group"][..], PeerOptions::FIELDS].concat();
    let (name, tags, object) = named::parts(cursor, &fields, false)?;
    let name = name.and_then(|name| peer_name(&name));
    let spec = spec(&object, Some((policies, groups)))?;
    Some(BgpPeer { name, tags, spec })
}

/// What is asked for of a neighbour. Whether the policies and the group that it names are there is not asked.
pub(crate) fn read_peer(cursor: &Cursor<'_>) -> Option<PeerSpec> {
    spec(&cursor.object(&[&["address", "group"][..], PeerOptions::FIELDS].concat())?, None)
}

/// What a group says, in the same way.
pub(crate) fn read_group(cursor: &Cursor<'_>) -> Option<PeerOptions> {
    let object = cursor.object(PeerOptions::FIELDS)?;
    let options = options(&object, None);
    together(&object, &options);
    listening(&object, &options);
    Some(options)
}

/// What a group says of neighbours that are not named.
fn listening(object: &Object<'_>, options: &PeerOptions) {
    let Some(field) = object.field("listen_ranges") else {
        for field in ["listen_limit", "listen_asns"].iter().filter_map(|name| object.field(name)) {
            field.wrong::<()>("is there, but no listen_ranges: say from where neighbours may come");
        }
        return;
    };
    let said = ["asn", "listen_asns"].iter().any(|name| object.field(name).is_some());
    if options.asn.is_none() && options.listen_asns.is_none() && !said {
        field.wrong::<()>(
            "is there, but neither asn nor listen_asns: say the AS numbers of the neighbours that come",
        );
    }
}

fn as_ranges(cursor: &Cursor<'_>) -> Option<Vec<AsRange>> {
    let mut named = 0;
    let ranges = cursor.list(|range| {
        named += 1;
        as_range(range)
    })?;
    if named == 0 {
        return cursor.wrong("is empty: list an AS number, or leave it out");
    }
    if ranges.len() > MAX_AS_RANGES {
        let count = ranges.len();
        return cursor.wrong(format!(
            "lists {count} numbers and ranges, but {MAX_AS_RANGES} are the most: join some"
        ));
    }
    Some(ranges)
}

fn as_range(cursor: &Cursor<'_>) -> Option<AsRange> {
    if !cursor.is_text() {
        return asn(cursor).map(|number| AsRange { first: number, last: number });
    }
    let text = cursor.text()?;
    let range: AsRange = match text.parse() {
        Ok(range) => range,
        Err(_) => {
            return cursor.wrong(format!("is `{text}`, but has to be an AS number (65001) or a range of them, the lower one first (65100-65199)"));
        }
    };
    usable_asn(cursor, range.first)?;
    usable_asn(cursor, range.last)?;
    Some(range)
}

fn ranges(cursor: &Cursor<'_>) -> Option<Vec<IpNetwork>> {
    let mut named = 0;
    let ranges = cursor.list(|range| {
        named += 1;
        range.prefix()
    })?;
    if named == 0 {
        return cursor.wrong("is empty, so nobody may come: list a prefix, or leave it out");
    }
    if let Some(twice) = ranges.iter().enumerate().find(|(place, it)| ranges[..*place].contains(it))
    {
        return cursor.wrong(format!("names {} twice: list it once", twice.1));
    }
    Some(ranges)
}

fn spec(object: &Object<'_>, known: Option<(&[BgpPolicy], &[PeerGroup])>) -> Option<PeerSpec> {
    let address = object.required("address").and_then(|address| neighbour(&address));
    let options = options(object, known.map(|(policies, _)| policies));
    for field in ["listen_ranges", "listen_limit", "listen_asns"] {
        if let Some(field) = object.field(field) {
            field.wrong::<()>("is for peer groups: a neighbour has one address, leave it out");
        }
    }
    let group = object.field("group").and_then(|cursor| Some(cursor.text()?.to_owned()));
    let spec = PeerSpec { address: address?, group, options };
    let Some((_, groups)) = known else { return Some(spec) };
    if let Some((cursor, name)) = object.field("group").zip(spec.group.as_deref())
        && groups.iter().all(|group| group.name != name)
    {
        let known: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
        let remedy = match known.as_slice() {
            [] => "add it to bgp.peer_groups".to_owned(),
            known => cursor.choice(name, known),
        };
        return cursor
            .wrong(format!("names the peer group `{name}`, which is not there: {remedy}"));
    }
    let effective = spec.effective(groups);
    if effective.asn.is_none() && object.field("asn").is_none() {
        return object.missing("asn", "say the neighbour's AS number, here or in its group");
    }
    if let Some(source) = effective.source
        && source.is_ipv4() != spec.address.is_ipv4()
        && let Some(field) = object.field("source").or_else(|| object.field("group"))
    {
        field.wrong::<()>(format!(
            "makes {source} the source, but that has to be of the family of `address`"
        ));
    }
    together(object, &effective);
    Some(spec)
}

/// The options of a neighbour or a group, each by itself.
fn options(object: &Object<'_>, policies: Option<&[BgpPolicy]>) -> PeerOptions {
    let seconds = |field| object.field(field).and_then(|time| time.number(1..=u16::MAX));
    let within = |field, range: RangeInclusive<u16>| object.field(field)?.number(range);
    let flag = |field| object.field(field).and_then(|flag| flag.boolean());
    PeerOptions {
        asn: object.field("asn").and_then(|number| asn(&number)),
        port: object.field("port").and_then(|port| port.number(1..=u16::MAX)),
        source: object.field("source").and_then(|source| source.address()),
        passive: flag("passive"),
        multihop: object.field("multihop").and_then(|hops| hops.number(1..=u8::MAX)),
        gtsm_hops: object.field("gtsm_hops").and_then(|hops| hops.number(1..=254)),
        md5_key_file: object.field("md5_key_file").and_then(|file| credential::file(&file)),
        tcp_user_timeout_secs: seconds("tcp_user_timeout_secs"),
        send_hold_time_secs: seconds("send_hold_time_secs"),
        hold_time_secs: object.field("hold_time_secs").and_then(|hold| hold_time(&hold)),
        connect_retry_secs: seconds("connect_retry_secs"),
        keepalive_secs: within("keepalive_secs", 1..=21_845),
        delay_open_secs: within("delay_open_secs", 0..=240),
        idle_hold_secs: within("idle_hold_secs", 1..=120),
        advertisement_interval_secs: within("advertisement_interval_secs", 0..=600),
        families: object.field("families").and_then(|list| families(&list)),
        graceful_restart: flag("graceful_restart"),
        // RFC 4724 §3: twelve bits.
        restart_time_secs: within("restart_time_secs", 1..=4095),
        import: object.field("import").and_then(|names| chain(&names, Way::Import, policies)),
        export: object.field("export").and_then(|names| chain(&names, Way::Export, policies)),
        install: object.field("install").and_then(|install| policy::install(&install)),
        next_hop_self: flag("next_hop_self"),
        route_reflector_client: flag("route_reflector_client"),
        add_path_receive: flag("add_path_receive"),
        add_path_send: object.field("add_path_send").and_then(|paths| paths.number(1..=64)),
        listen_ranges: object.field("listen_ranges").and_then(|list| ranges(&list)),
        // As many as the router takes of one group.
        listen_limit: within("listen_limit", 1..=lb_routing::MAX_DYNAMIC),
        listen_asns: object.field("listen_asns").and_then(|list| as_ranges(&list)),
        keep_rejected: flag("keep_rejected"),
        max_prefixes: object.field("max_prefixes").and_then(|limit| max_prefixes(&limit)),
        local_as: object.field("local_as").and_then(|number| asn(&number)),
        remove_private_as: flag("remove_private_as"),
        // RFC 4271 does not say how many are too many; GoBGP, FRR and others stop at 10.
        allow_as_in: object.field("allow_as_in").and_then(|times| times.number(0..=10)),
        reject_as_set: flag("reject_as_set"),
        shutdown: flag("shutdown"),
        shutdown_message: object.field("shutdown_message").and_then(|text| message(&text)),
        graceful_shutdown: flag("graceful_shutdown"),
    }
}

/// What options say together.
fn together(object: &Object<'_>, options: &PeerOptions) {
    if options.gtsm_hops.is_some() && options.multihop.is_some() {
        let fields = ["gtsm_hops", "multihop", "group"];
        if let Some(field) = fields.iter().find_map(|field| object.field(field)) {
            field.wrong::<()>("makes GTSM and `multihop` meet: GTSM's packets always start at 255, keep one of the two");
        }
    }
    if options.graceful_restart == Some(false)
        && options.restart_time_secs.is_some()
        && let Some(field) = object.field("restart_time_secs")
    {
        field.wrong::<()>("is there, but graceful_restart is false: keep one of the two");
    }
    let least = options.hold_time_secs().saturating_add(1).max(10);
    if let Some(seconds) = options.send_hold_time_secs.filter(|&seconds| seconds < least) {
        let fields = ["send_hold_time_secs", "hold_time_secs", "group"];
        if let Some(field) = fields.iter().find_map(|field| object.field(field)) {
            field.wrong::<()>(format!(
                "makes send_hold_time_secs {seconds}, but that has to be {least} or more: above hold_time_secs, and 10 at least (RFC 9687)"
            ));
        }
    }
}

fn families(cursor: &Cursor<'_>) -> Option<Vec<Family>> {
    let families = cursor.list(|family| family.one_of(&FAMILIES))?;
    if families.is_empty() {
        return cursor
            .wrong("is empty, but a session speaks one family at least: list ipv4, ipv6 or both");
    }
    if families.iter().enumerate().any(|(place, family)| families[..place].contains(family)) {
        return cursor.wrong("names a family twice: list each once");
    }
    Some(families)
}

fn message(cursor: &Cursor<'_>) -> Option<String> {
    // RFC 9003 §2.
    const LONGEST: usize = 255;
    let text = cursor.text()?;
    if text.len() > LONGEST {
        return cursor
            .wrong(format!("has {} octets, but {LONGEST} are the most (RFC 9003)", text.len()));
    }
    Some(text.to_owned())
}

fn peer_name(cursor: &Cursor<'_>) -> Option<String> {
    const LONGEST: usize = 64;
    let name = cursor.text()?;
    if !(1..=LONGEST).contains(&name.len()) || name.chars().any(char::is_control) {
        return cursor.wrong(format!("has to be 1 to {LONGEST} printable characters"));
    }
    Some(name.to_owned())
}

fn neighbour(cursor: &Cursor<'_>) -> Option<IpAddr> {
    let address = cursor.address()?;
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return cursor.wrong(format!("is {address}, but a neighbour has a unicast address"));
    }
    if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
        return cursor.wrong(format!(
            "is {address}, but a link-local address does not say which link: use a global one"
        ));
    }
    Some(address)
}

fn hold_time(cursor: &Cursor<'_>) -> Option<u16> {
    match cursor.number(0..=u16::MAX)? {
        // RFC 4271 §4.2.
        seconds @ 1..=2 => cursor.wrong(format!(
            "is {seconds}, but has to be 0 (never expires) or from 3 to 65535 (RFC 4271)"
        )),
        seconds => Some(seconds),
    }
}
