//! From the file's section `bgp` to the router's configuration, and from its state to what people see.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_api_types::config::{self, Bgp};
use lb_api_types::peer::{self, AsRange, BgpPeer, PeerOptions, PeerSpec};
use lb_api_types::policy::{Family, Policies};
use lb_api_types::resource::{Condition, Tags};
use lb_api_types::view::{
    BgpRoute, BgpRouteSpec, BgpRouteStatus, ListenView, MessageCounts, PeerSettings, PeerView,
    SeenMetadata,
};
use lb_routing::policy::communities;
use lb_routing::{
    BeyondLimit, Decision, Listen, ListenStatus, MaxPrefixes, Md5Key, Messages, PathStatus,
    PeerConfig, PeerStatus, Peers, Reach, RouterConfig, SpeakerConfig, State, Transport,
};

use super::policy::{self, Library};
use crate::config::keys;

/// The identifier that we have where nobody says one: it stays, whatever addresses come and go meanwhile.
#[derive(Debug, Default)]
pub(super) struct DefaultId(Option<Ipv4Addr>);

/// `preserved`: the dataplane of the process before was taken over.
pub(super) async fn config(
    bgp: &Bgp,
    id: &mut DefaultId,
    keys: &mut Keys,
    preserved: bool,
) -> Result<RouterConfig> {
    let Peers { speaker, peers, transports, dynamic, listen } = peers(bgp, id, keys).await?;
    Ok(RouterConfig { speaker, peers, transports, dynamic, listen, forward: true, preserved })
}

/// Whose key was never read is left out.
struct LeftOut;

/// Keys as their files said them last, so that a file that has gone ends no session.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Of files that neighbours name.
    known: HashMap<PathBuf, Md5Key>,
    /// Files that neighbours name and that cannot be read, with what is to be said of each.
    unread: Vec<(PathBuf, String)>,
}

impl Keys {
    /// What is to be said of files that cannot be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = String> {
        self.unread.iter().map(|(_, said)| said.clone())
    }

    /// Whether one of the files that could not be read can be now.
    pub(super) fn could_read_more(&self) -> bool {
        self.unread.iter().any(|(file, _)| keys::read(file).is_ok())
    }

    /// Whether a file says another key than it did.
    pub(super) fn have_changed(&self) -> bool {
        self.known.iter().any(|(file, known)| keys::read(file).is_ok_and(|key| key != *known))
    }

    /// Forgets what no neighbour names any more.
    fn keep_only(&mut self, named: &HashSet<PathBuf>) {
        self.known.retain(|file, _| named.contains(file));
    }

    /// The key of whoever names a file, if they name one; an error where it was never read.
    fn of(&mut self, who: &str, file: Option<&Path>) -> Result<Option<Md5Key>, LeftOut> {
        let Some(file) = file else { return Ok(None) };
        let (key, what) = match keys::read(file) {
            Ok(key) => {
                self.known.insert(file.to_owned(), key.clone());
                return Ok(Some(key));
            }
            Err(why) => (self.known.get(file).cloned(), format!("{who}: md5_key_file {why}")),
        };
        let said = match key {
            Some(_) => format!("{what}; until then it has the key that was there"),
            None => format!("{what}; it is left out until then"),
        };
        self.unread.push((file.to_owned(), said));
        key.map(Some).ok_or(LeftOut)
    }
}

/// Who we are, and the neighbours with what their groups and policies say; without those whose key was never read.
pub(super) async fn peers(bgp: &Bgp, id: &mut DefaultId, keys: &mut Keys) -> Result<Peers> {
    let said = bgp.global();
    let router_id = match said.router_id {
        Some(id) => id,
        None => default_router_id(bgp, id).await?,
    };
    let speaker = SpeakerConfig {
        max_paths: said.decision().max_paths.into(),
        cluster_id: said.cluster_id,
        decision: decision(&said.decision()),
        ..SpeakerConfig::new(said.asn(), router_id)
    };
    let library = Library::of(bgp)?;
    let (mut peers, mut transports) = (Vec::new(), HashMap::new());
    keys.unread.clear();
    let mut named = HashSet::new();
    for told in &bgp.peers {
        // What a group says of those that nobody named is nothing to one that somebody did.
        let options = told.spec.effective(&bgp.peer_groups);
        let options = PeerOptions { listen_asns: None, ..options };
        named.extend(options.md5_key_file.clone());
        let who = format!("peer {}", told.title());
        let Ok(key) = keys.of(&who, options.md5_key_file.as_deref()) else { continue };
        let made = peer(told, &options, &library);
        peers.push(made.context(who)?);
        transports.insert(told.spec.address, transport(bgp, &options, key));
    }
    let mut dynamic = Vec::new();
    for group in &bgp.peer_groups {
        let Some(ranges) = group.options.listen_ranges.clone() else { continue };
        named.extend(group.options.md5_key_file.clone());
        // It is none of a neighbour: each has its own.
        let (name, address) = (Some(group.name.clone()), Ipv4Addr::UNSPECIFIED.into());
        let spec = PeerSpec { address, group: None, options: group.options.clone() };
        let told = BgpPeer { name, tags: Tags::default(), spec };
        let who = format!("peer group {}", group.name);
        let Ok(key) = keys.of(&who, group.options.md5_key_file.as_deref()) else { continue };
        let mut template = peer(&told, &group.options, &library).context(who)?;
        template.asns = asns(&group.options);
        let (name, limit) = (group.name.clone(), group.options.listen_limit());
        let transport = transport(bgp, &group.options, key);
        dynamic.push((Listen { name, ranges, limit, template }, transport));
    }
    keys.keep_only(&named);
    Ok(Peers { speaker, peers, transports, dynamic, listen: said.listen() })
}

/// Has every neighbour be told, with all that is advertised, that this node is about to go (RFC 8326 §4.1).
pub(super) fn say_goodbye(section: &mut Bgp) {
    let peers = section.peers.iter_mut().map(|peer| &mut peer.spec.options);
    let groups = section.peer_groups.iter_mut().map(|group| &mut group.options);
    peers.chain(groups).for_each(|options| options.graceful_shutdown = Some(true));
}

async fn default_router_id(bgp: &Bgp, chosen: &mut DefaultId) -> Result<Ipv4Addr> {
    if let Some(id) = chosen.0 {
        return Ok(id);
    }
    chosen.0 = lb_routing::default_router_id().await.context("no BGP identifier")?;
    match chosen.0 {
        Some(id) => Ok(id),
        // Nobody is told it.
        None if bgp.peers.is_empty() && !listens(bgp) => Ok(Ipv4Addr::LOCALHOST),
        None => bail!("this host has no IPv4 address to be its BGP identifier: set bgp.router_id"),
    }
}

/// Whether neighbours may come by themselves.
fn listens(bgp: &Bgp) -> bool {
    bgp.peer_groups.iter().any(|group| group.options.listen_ranges.is_some())
}

fn seconds(count: u16) -> Duration {
    Duration::from_secs(count.into())
}

/// A neighbour's AS number, or the first of those that one of a group may have.
fn first_asn(options: &PeerOptions) -> Option<u32> {
    let listed = options.listen_asns.iter().flatten().map(|range| range.first);
    options.asn.into_iter().chain(listed).next()
}

/// Those that one may have that comes by itself; none: one only.
fn asns(options: &PeerOptions) -> Vec<RangeInclusive<u32>> {
    let Some(listed) = &options.listen_asns else { return Vec::new() };
    let listed = listed.iter().map(|range| range.first..=range.last);
    options.asn.map(|asn| asn..=asn).into_iter().chain(listed).collect()
}

fn peer(told: &BgpPeer, options: &PeerOptions, library: &Library) -> Result<PeerConfig> {
    let nothing = Policies::default();
    let says = |flag: Option<bool>| flag.unwrap_or_default();
    Ok(PeerConfig {
        name: told.title(),
        address: told.spec.address,
        port: options.port(),
        source: options.source,
        asn: first_asn(options).context("it has no AS number")?,
        asns: Vec::new(),
        passive: says(options.passive),
        hold_time: Duration::from_secs(options.hold_time_secs().into()),
        connect_retry: Duration::from_secs(options.connect_retry_secs().into()),
        keepalive: options.keepalive_secs.map(seconds),
        delay_open: seconds(options.delay_open_secs.unwrap_or(0)),
        idle_hold: seconds(options.idle_hold_secs.unwrap_or(1)),
        advertisement_interval: seconds(options.advertisement_interval_secs.unwrap_or(0)),
        families: options.families.as_deref().map(|families| families.iter().map(family).collect()),
        restart_time: options.restart_time_secs().map(|secs| Duration::from_secs(secs.into())),
        import: library.import(options.import.as_ref().unwrap_or(&nothing))?,
        export: library.export(options.export.as_ref().unwrap_or(&nothing))?,
        install: policy::install(options.install.unwrap_or_default()),
        next_hop_self: says(options.next_hop_self),
        route_reflector_client: says(options.route_reflector_client),
        add_path_receive: says(options.add_path_receive),
        add_path_send: options.add_path_send.unwrap_or_default(),
        keep_rejected: says(options.keep_rejected),
        max_prefixes: options.max_prefixes.as_ref().map(max_prefixes),
        local_as: options.local_as,
        remove_private_as: says(options.remove_private_as),
        allow_as_in: options.allow_as_in.unwrap_or_default(),
        reject_as_set: says(options.reject_as_set),
        shutdown: says(options.shutdown)
            .then(|| options.shutdown_message.clone().unwrap_or_default()),
        graceful_shutdown: says(options.graceful_shutdown),
    })
}

fn decision(told: &config::Decision) -> Decision {
    Decision {
        always_compare_med: told.always_compare_med,
        med_missing_as_worst: told.med_missing_as_worst,
        compare_router_id: told.compare_router_id,
        max_paths_internal: told.max_paths_internal.map(usize::from),
        mixed_multipath: told.mixed_multipath,
    }
}

fn max_prefixes(told: &peer::MaxPrefixes) -> MaxPrefixes {
    let restart = told.restart_secs.map(|secs| Duration::from_secs(secs.into()));
    MaxPrefixes {
        limit: told.limit,
        warn_percent: told.warn_percent.unwrap_or(75),
        beyond: match told.beyond {
            None | Some(peer::BeyondLimit::End) => BeyondLimit::End(restart),
            Some(peer::BeyondLimit::Warn) => BeyondLimit::Warn,
            Some(peer::BeyondLimit::Discard) => BeyondLimit::Discard,
        },
    }
}

fn family(family: &Family) -> lb_routing::Family {
    match family {
        Family::Ipv4 => lb_routing::Family::IPV4_UNICAST,
        Family::Ipv6 => lb_routing::Family::IPV6_UNICAST,
    }
}

fn transport(bgp: &Bgp, options: &PeerOptions, md5: Option<Md5Key>) -> Transport {
    // Where a neighbour may be in either, it has to be as near as one in another AS.
    let ours = options.local_as.unwrap_or(bgp.global().asn());
    let all_ours = asns(options).into_iter().all(|range| range == (ours..=ours));
    let is_external = first_asn(options) != Some(ours) || !all_ours;
    Transport {
        reach: match (options.gtsm_hops, options.multihop) {
            (Some(hops), _) => Reach::Secured(hops),
            (None, Some(hops)) => Reach::Hops(hops),
            // As every router does: a neighbour in another AS is on the same link unless told otherwise.
            (None, None) if is_external => Reach::Hops(1),
            (None, None) => Reach::Anywhere,
        },
        md5,
        user_timeout: options.tcp_user_timeout_secs.map(|secs| Duration::from_secs(secs.into())),
        send_hold_time: Duration::from_secs(options.send_hold_time_secs().into()),
    }
}

/// What the configuration says of a neighbour, as people see it; a key is only said to be there.
pub(super) fn peer_settings(options: &PeerOptions) -> PeerSettings {
    PeerSettings {
        port: options.port(),
        source: options.source,
        passive: options.passive.unwrap_or_default(),
        multihop: options.multihop,
        gtsm_hops: options.gtsm_hops,
        md5: options.md5_key_file.is_some(),
        tcp_user_timeout_secs: options.tcp_user_timeout_secs,
        send_hold_time_secs: options.send_hold_time_secs(),
        hold_time_secs: options.hold_time_secs(),
        connect_retry_secs: options.connect_retry_secs(),
        restart_time_secs: options.restart_time_secs(),
        keepalive_secs: options.keepalive_secs,
        delay_open_secs: options.delay_open_secs.unwrap_or(0),
        idle_hold_secs: options.idle_hold_secs.unwrap_or(1),
        advertisement_interval_secs: options.advertisement_interval_secs.unwrap_or(0),
        shutdown: options.shutdown.unwrap_or_default(),
        graceful_shutdown: options.graceful_shutdown.unwrap_or_default(),
    }
}

pub(super) fn peer_view(
    peer: PeerStatus,
    settings: Option<PeerSettings>,
    now: Instant,
) -> PeerView {
    PeerView {
        conditions: vec![established(&peer)],
        name: peer.name,
        address: peer.address,
        asn: peer.asn,
        dynamic: peer.dynamic,
        state: state(peer.state).into(),
        since_secs: now.saturating_duration_since(peer.since).as_secs(),
        router_id: peer.router_id,
        hold_time_secs: peer.hold_time_secs,
        prefixes_received: peer.prefixes_received,
        prefixes_rejected: peer.prefixes_rejected,
        routes_refused: peer.routes_refused,
        refused_not_kept: peer.refused_not_kept,
        malformed: peer.malformed,
        last_malformed: peer.last_malformed,
        capabilities: peer.capabilities,
        prefixes_advertised: peer.prefixes_advertised,
        messages_received: peer.messages_received.total(),
        messages_sent: peer.messages_sent.total(),
        received: message_counts(peer.messages_received),
        sent: message_counts(peer.messages_sent),
        last_error: peer.last_error,
        stale_secs: peer.stale_until.map(|until| until.saturating_duration_since(now).as_secs()),
        settings,
    }
}

fn message_counts(messages: Messages) -> MessageCounts {
    let Messages { open, update, notification, keepalive, route_refresh } = messages;
    MessageCounts { open, update, notification, keepalive, route_refresh }
}

pub(super) fn listen_view(status: ListenStatus) -> ListenView {
    let ListenStatus { name, ranges, limit, neighbours, refused, asns, wrong_as } = status;
    let asns = asns.iter().map(|it| AsRange { first: *it.start(), last: *it.end() }).collect();
    ListenView { group: name, ranges, limit, neighbors: neighbours, refused, asns, wrong_as }
}

fn established(peer: &PeerStatus) -> Condition {
    let (name, reason) = ("Established", state(peer.state));
    match (peer.state, peer.last_error.as_str()) {
        (State::Established, _) => Condition::new(name, true, reason, "there is a session"),
        (_, "") => Condition::new(name, false, reason, "there is no session yet"),
        (_, error) => Condition::new(name, false, reason, error),
    }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Idle => "Idle",
        State::Connect => "Connect",
        State::Active => "Active",
        State::OpenSent => "OpenSent",
        State::OpenConfirm => "OpenConfirm",
        State::Established => "Established",
    }
}

pub(super) fn route_view(path: PathStatus) -> BgpRoute {
    let spec = BgpRouteSpec {
        prefix: path.prefix,
        peer: path.peer,
        path_id: Some(path.path_id).filter(|id| *id != 0),
    };
    let best = match (path.best, path.multipath) {
        (true, _) => Condition::new("Best", true, "Best", "it won"),
        (false, true) => Condition::new("Best", false, "Equal", "it is as good as the best one"),
        (false, false) => {
            let why = format!("`lbctl bgp explain {}` says why another one won", path.prefix);
            Condition::new("Best", false, "NotBest", why)
        }
    };
    let carries = match path.multipath {
        true => Condition::new("CarriesTraffic", true, "Chosen", "traffic goes this way"),
        false => Condition::new("CarriesTraffic", false, "NotChosen", "no traffic goes this way"),
    };
    BgpRoute {
        metadata: SeenMetadata::of(spec.to_string()),
        spec,
        status: BgpRouteStatus {
            conditions: vec![best, carries],
            next_hop: path.next_hop,
            as_path: path.attributes.as_path.to_string(),
            origin: path.attributes.origin.to_string(),
            local_pref: path.attributes.local_pref,
            med: path.attributes.med,
            communities: communities(&path.attributes).map(|it| it.to_string()).collect(),
            originator_id: path.attributes.originator_id,
            cluster_list: path.attributes.cluster_list,
            rejected: path.rejected.map(str::to_owned),
            why: path.why,
            best: path.best,
            multipath: path.multipath,
            stale: path.stale,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_while_a_neighbour_names_them_and_asked_for_again_only_when_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| std::fs::write(file, "s3cret").unwrap());
        let mut keys = Keys::default();
        assert!(files.iter().all(|file| keys.of("peer n", Some(file)).is_ok()));
        assert!(!keys.have_changed());
        std::fs::write(&files[0], "an0ther").unwrap();
        assert!(keys.have_changed() && keys.of("peer n", Some(&files[0])).is_ok());
        assert!(!keys.have_changed(), "it is known now");
        std::fs::remove_file(&files[0]).unwrap();
        assert!(!keys.have_changed(), "it stays as it was last");
        assert!(matches!(keys.of("peer n", Some(&files[0])), Ok(Some(_))), "as it was last");
        assert!(!keys.could_read_more(), "there is no news of it");
        assert_eq!(keys.unread().count(), 1);
        keys.keep_only(&[files[1].clone()].into());
        assert_eq!(keys.known.len(), 1, "nobody names it any more");
        assert!(keys.of("peer n", Some(&files[0])).is_err());
        std::fs::write(&files[0], "s3cret").unwrap();
        assert!(keys.could_read_more());
    }
}
