//! Messages of more than 4096 octets (RFC 8654), and IPv4 routes with IPv6 next hops (RFC 8950).

use lb_routing::policy::Actions;
use lb_routing::{Export, PeerConfig};

use super::policies::chain;
use super::{Kind, Pair, Wish};
use crate::lab::kernel_route;

/// A route of ours has 400 large communities, which no ordinary message has room for.
pub(super) async fn extended_messages(kind: &'static dyn Kind) {
    let communities = (1..=400).map(|number| format!("64512:1:{number}").parse().unwrap());
    let actions = Actions { add_communities: communities.collect(), ..Actions::default() };
    let many = |peer: &mut PeerConfig| peer.export = Export::Policies(chain(Vec::new(), actions));
    let pair = Pair::start_with(kind, Wish::default(), Vec::new(), many).await;
    pair.shows(pair.wish.ours(), &["64512:1:1", "64512:1:400"]).await;
}

/// Both ways, and into the kernel.
pub(super) async fn ipv4_by_ipv6(kind: &'static dyn Kind) {
    let wish = Wish { by_ipv6: true, ..Wish::default() };
    let pair = Pair::start(kind, wish, Vec::new()).await;
    pair.talk().await;
    kernel_route(wish.theirs(), |route| route.contains("via inet6 2001:db8::2 dev lbr0")).await;
}
