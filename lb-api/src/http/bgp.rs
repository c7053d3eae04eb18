//! BGP's sessions and routes: what is done and asked beside the resources.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnetwork::IpNetwork;
use lb_api_types::problem::Problem;
use lb_api_types::view::{BgpRoute, BgpRouteSpec, ClearWhat, Explanation, List};
use lb_routing::policy::{AsPathSet, CommunityError, CommunitySet};
use lb_routing::{Destination, Query, Table};

use super::App;
use super::handlers::Name;
use super::problem::Refused;
use super::terms::{Asked, Part, name, part};
use crate::registry::Refusal;
use crate::resources::{Key, Kind, Resource};

/// Clears a neighbour's session: ends it (`what=session`, the default), or has its routes told again, ours to it
/// (`what=out`) or its to us (`what=in`), without ending it.
#[utoipa::path(post, path = "/api/v1/bgp/peers/{name}/clear", tag = "peers",
    params(("name" = String, Path, description = "The neighbour's name"),
        ("what" = Option<String>, Query, description = "session, the default, in or out")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn clear_peer(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<StatusCode, Refused> {
    let key = Key(Kind::Peer, name(path)?);
    let mut what = ClearWhat::Session;
    for (field, value) in &asked.0 {
        what = match (field.as_str(), value.as_str()) {
            ("what", "session") => ClearWhat::Session,
            ("what", "in") => ClearWhat::In,
            ("what", "out") => ClearWhat::Out,
            _ => {
                let known = "only what is known here: session, in or out";
                return Err(Refused::query(&format!("{field}={value}"), known));
            }
        };
    }
    let unknown = || Refused::from(Refusal::Unknown(key.to_string()));
    let found = app.registry.get_resource(&key).await;
    let come = match &found {
        Err(Refusal::Unknown(_)) => super::resources::dynamic(&app).await,
        Ok(_) | Err(_) => Vec::new(),
    };
    let address = match come.into_iter().find(|peer| peer.metadata.name == key.1) {
        Some(peer) => peer.spec.address,
        None => {
            let Resource::Peer(peer) = found? else { return Err(unknown()) };
            peer.spec.address
        }
    };
    match app.views.clear(address, what).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}

/// Paths, sorted by prefix and neighbour, our own first: an order that does not change while others come and go. What the
/// query says has to hold of all that are listed.
#[utoipa::path(get, path = "/api/v1/bgp/routes", tag = "bgp",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 100_000, description = "Items at most; 10000 by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`, the name of its last path"),
        ("table" = Option<String>, Query, description = "usable (what can be used, as import policy left it; the default), loc-rib (what was selected of that), adj-rib-in (what a neighbour told, as it came; with keep_rejected what import refuses, too) or adj-rib-out (what a neighbour was told)"),
        ("neighbor" = Option<String>, Query, description = "Told by this neighbour, by its address; of adj-rib-out, told to it"),
        ("prefix" = Option<String>, Query, description = "This very prefix"),
        ("within" = Option<String>, Query, description = "This prefix and those inside"),
        ("community" = Option<String>, Query, description = "With this community, of any kind; * is any number: 65001:*. Several, 4 at most: with all of them"),
        ("asPath" = Option<String>, Query, description = "With an AS path that this pattern matches, as in sets: ^65001_. Several, 4 at most: that all of them match")),
    responses((status = 200, body = List<BgpRoute>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_routes(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<BgpRoute>>, Refused> {
    let (page, about): (Vec<_>, Vec<_>) =
        asked.0.into_iter().partition(|(name, _)| matches!(name.as_str(), "limit" | "cursor"));
    let query = route_query(&about)?;
    if let Some(address) = query.neighbour {
        let peers = app.views.peers().await;
        if !peers.iter().any(|peer| peer.address.to_canonical() == address.to_canonical()) {
            let known =
                "there is no such neighbour: say the address of one that /api/v1/bgp/peers lists";
            return Err(Refused::query(&format!("neighbor={address}"), known));
        }
    }
    let page = axum::extract::Query(page);
    let Part { limit, after } = part(&page, |name| name.parse::<BgpRouteSpec>().ok())?;
    Ok(Json(app.views.routes(query, after, limit).await))
}

/// Communities, and AS paths, that a query names at most: each pattern of a path is a matcher of up to a MiB.
const MAX_PATTERNS: usize = 4;

/// Which routes are asked for.
fn route_query(about: &[(String, String)]) -> Result<Query, Refused> {
    let mut query = Query::default();
    for (name, value) in about {
        let wrong = |known: &str| Refused::query(&format!("{name}={value}"), known);
        let prefix = || {
            let prefix = value.parse::<IpNetwork>().ok();
            let whole = prefix.filter(|it| value.contains('/') && it.ip() == it.network());
            whole
                .ok_or_else(|| wrong("it has to be a prefix without host bits, such as 10.0.0.0/8"))
        };
        let once = !matches!(name.as_str(), "community" | "asPath");
        let said = about.iter().filter(|(other, _)| other == name).count();
        if once && said > 1 {
            return Err(wrong("say it once"));
        }
        if said > MAX_PATTERNS {
            return Err(wrong(&format!("say {MAX_PATTERNS} of them at most")));
        }
        match name.as_str() {
            "table" => {
                query.table = match value.as_str() {
                    "usable" => Table::Usable,
                    "loc-rib" => Table::LocRib,
                    "adj-rib-in" => Table::AdjRibIn,
                    "adj-rib-out" => Table::AdjRibOut,
                    _ => {
                        return Err(wrong(
                            "the tables are usable, loc-rib, adj-rib-in and adj-rib-out",
                        ));
                    }
                }
            }
            "neighbor" => {
                let address = value.parse();
                let known = "it has to be a neighbour's address";
                query.neighbour = Some(address.map_err(|_| wrong(known))?);
            }
            "prefix" => query.prefix = Some(prefix()?),
            "within" => query.within = Some(prefix()?),
            "community" => {
                let pattern =
                    value.parse().map_err(|why: CommunityError| wrong(&why.to_string()))?;
                query.communities.push(CommunitySet::new([pattern]));
            }
            "asPath" => {
                let set = AsPathSet::new(vec![value.clone()]);
                query.as_paths.push(set.map_err(|why| wrong(&why.to_string()))?);
            }
            _ => {
                return Err(wrong(
                    "only limit, cursor, table, neighbor, prefix, within, community and asPath are known here",
                ));
            }
        }
    }
    if matches!(query.table, Table::AdjRibIn | Table::AdjRibOut) && query.neighbour.is_none() {
        let known = "this table is one of a neighbour: say neighbor, too";
        return Err(Refused::query("table", known));
    }
    Ok(query)
}

/// Which paths a prefix has, the best one first, and what keeps it from which neighbour; of an address, the longest prefix
/// that covers it.
#[utoipa::path(get, path = "/api/v1/bgp/explain", tag = "bgp",
    params(("prefix" = String, Query, description = "The prefix, such as 10.0.0.0/8, or an address, such as 10.1.2.3")),
    responses((status = 200, body = Explanation),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn explain(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<Explanation>, Refused> {
    const KNOWN: &str =
        "it has to be one prefix without host bits, such as 10.0.0.0/8, or an address";
    let [(field, value)] = asked.0.as_slice() else {
        return Err(Refused::query("", &format!("say prefix: {KNOWN}")));
    };
    let Some(what) = destination(value).filter(|_| field == "prefix") else {
        return Err(Refused::query(&format!("{field}={value}"), KNOWN));
    };
    app.views.explain(what).await.map(Json).map_err(Refused::unavailable)
}

fn destination(text: &str) -> Option<Destination> {
    if let Ok(address) = text.parse() {
        return Some(Destination::Address(address));
    }
    let prefix = text.parse::<IpNetwork>().ok().filter(|prefix| prefix.ip() == prefix.network());
    prefix.map(Destination::Prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_asked_for_by_table_neighbour_prefix_community_and_path_and_nothing_else() {
        let ask = |said: &[(&str, &str)]| {
            let said: Vec<_> =
                said.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            route_query(&said).map_err(|_| ())
        };
        let query = ask(&[
            ("table", "adj-rib-in"),
            ("neighbor", "192.0.2.1"),
            ("within", "10.0.0.0/8"),
            ("community", "65001:*"),
            ("asPath", "_7$"),
        ]);
        let query = query.unwrap();
        assert_eq!(query.table, Table::AdjRibIn);
        assert_eq!(query.neighbour, Some([192, 0, 2, 1].into()));
        assert_eq!(query.within, Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!((query.communities.len(), query.as_paths.len()), (1, 1));
        assert!(ask(&[]).is_ok());
        let all = ask(&[("community", "1:1"), ("community", "2:2")]).unwrap();
        assert_eq!(all.communities.len(), 2);
        assert!(ask(&[("within", "10.0.0.0/8"), ("within", "11.0.0.0/8")]).is_err());
        let prefix = "10.0.0.0/8".parse().unwrap();
        assert_eq!(destination("10.0.0.0/8"), Some(Destination::Prefix(prefix)));
        assert_eq!(destination("10.0.0.1"), Some(Destination::Address([10, 0, 0, 1].into())));
        assert_eq!((destination("10.0.0.1/8"), destination("summry")), (None, None));
        for wrong in [
            ("table", "rib"),
            ("table", "adj-rib-out"),
            ("neighbor", "upstream"),
            ("prefix", "10.0.0.1/8"),
            ("within", "10.0.0.0"),
            ("community", "x"),
            ("asPath", "("),
            ("colour", "red"),
        ] {
            assert!(ask(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
