//! Policy between us and a daemon, both ways.

use std::sync::Arc;

use lb_routing::policy::{
    Actions, AsPathSet, Chain, CommunitySet, Condition, Match, Policy, PrefixSet, Source,
    Statement, Verdict,
};
use lb_routing::{Export, Import};

use super::{Kind, Pair, Wish};

pub(super) fn chain(conditions: Vec<Condition>, actions: Actions) -> Chain {
    let verdict = Verdict::Accept;
    let statements = vec![Statement { name: String::new(), conditions, actions, verdict }];
    Chain::new(vec![Arc::new(Policy { name: "p".into(), statements, otherwise: Verdict::Next })])
}

/// Its route is let in by prefix, path and both kinds of community, and changed; ours arrives as policy makes it.
pub(super) async fn policy(kind: &'static dyn Kind) {
    let wish = Wish::default();
    let communities = ["64513:100", "64513:*:2"].map(|text| text.parse().unwrap());
    let import = chain(
        vec![
            Condition::Prefix(Arc::new(PrefixSet::new(vec![
                "10.244.0.0/16 ge 24 le 24".parse().unwrap(),
            ]))),
            Condition::AsPath(Arc::new(AsPathSet::new(vec!["^64513$".into()]).unwrap())),
            Condition::Community(Arc::new(CommunitySet::new(communities)), Match::All),
        ],
        Actions { local_pref: Some(222), ..Actions::default() },
    );
    let export = chain(
        vec![Condition::Source(Source::Local)],
        Actions {
            med: Some(77),
            prepend: Some((None, 2)),
            add_communities: vec!["64512:9".parse().unwrap(), "64512:8:7".parse().unwrap()],
            ..Actions::default()
        },
    );
    let pair = Pair::start_with(kind, wish, Vec::new(), |peer| {
        peer.import = Import::Policies(import);
        peer.export = Export::Policies(export);
    })
    .await;
    assert_eq!(pair.learned().await.attributes.local_pref, Some(222));
    pair.shows(wish.ours(), &["64512 64512 64512", "64512:9", "64512:8:7", "77"]).await;
}
