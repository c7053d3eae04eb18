//! `export`: the configuration as one document, which `apply` takes, and lbd as its own file or a part of it.

use std::collections::BTreeSet;

use lb_api_types::bgp::Global;
use lb_api_types::view::{Configuration, RunningConfig};

use super::CtlError;
use super::client::Client;
use super::show::{typed, yaml};
use crate::resources::Kind;

/// Everything made over REST that counts; with `all` also what the file says, with `with_hidden` what it hides, which a host with
/// the same file refuses. Never both: lbd's own file can have only one of the two.
pub(super) async fn export(
    client: &Client,
    all: bool,
    with_hidden: bool,
) -> Result<String, CtlError> {
    let RunningConfig { metadata, spec, status } = typed(client.get("config").await?)?;
    let of_file = if all { Vec::new() } else { status.of_file };
    let mut said = written(spec, &of_file.iter().map(String::as_str).collect());
    let hidden = written(status.hidden, &BTreeSet::new());
    if with_hidden {
        join(&mut said, hidden);
    } else if !hidden.is_empty() {
        eprintln!(
            "left out: what was made over REST and the configuration file hides, which stays where it is; `lbctl export --hidden` has it, too, for a host without this file"
        );
    }
    let more = if all { ", and what its file says but for its own settings" } else { "" };
    let mut text = format!(
        "# What was made over REST up to revision {}{more}: `lbctl apply -f` takes it, and lbd as its own file or a part of it.\n---\n",
        metadata.revision
    );
    text.push_str(&yaml(&serde_json::json!(said))?);
    if !of_file.is_empty() {
        let many = of_file.len();
        eprintln!(
            "left out: {many} resources of the configuration file, which is their home; --all has them, too"
        );
    }
    Ok(text)
}

/// Adds resources of other names.
fn join(whole: &mut Configuration, more: Configuration) {
    let Configuration { bgp, pools, health_checks, nodes, addresses, static_routes, vips } = more;
    whole.pools.extend(pools);
    whole.health_checks.extend(health_checks);
    whole.nodes.extend(nodes);
    whole.addresses.extend(addresses);
    whole.static_routes.extend(static_routes);
    whole.vips.extend(vips);
    whole.bgp.sets.extend(bgp.sets);
    whole.bgp.policies.extend(bgp.policies);
    whole.bgp.peer_groups.extend(bgp.peer_groups);
    whole.bgp.peers.extend(bgp.peers);
}

/// The configuration without these, and without revisions: what is written is what is wanted, whatever was there before.
fn written(mut whole: Configuration, without: &BTreeSet<&str>) -> Configuration {
    macro_rules! lists {
        ($($kind:expr => $list:expr),* $(,)?) => {$(
            let noun = $kind;
            $list.retain(|one| !without.contains(format!("{noun}/{}", one.metadata.name).as_str()));
            $list.iter_mut().for_each(|one| one.metadata.revision = None);
        )*};
    }
    lists! {
        "vip" => whole.vips,
        Kind::Pool.noun() => whole.pools,
        Kind::HealthCheck.noun() => whole.health_checks,
        Kind::Node.noun() => whole.nodes,
        Kind::Set.noun() => whole.bgp.sets,
        Kind::Policy.noun() => whole.bgp.policies,
        Kind::PeerGroup.noun() => whole.bgp.peer_groups,
        Kind::Peer.noun() => whole.bgp.peers,
        Kind::Address.noun() => whole.addresses,
        Kind::StaticRoute.noun() => whole.static_routes,
    }
    let global =
        format!("{}/{}", Kind::BgpGlobal.noun(), Kind::BgpGlobal.only().unwrap_or_default());
    if without.contains(global.as_str()) {
        whole.bgp.set_global(Global::default());
    }
    whole
}
