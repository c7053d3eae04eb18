//! The configuration as a whole: applied, confirmed, rolled back.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use lb_api_types::bgp::{Global, GlobalSpec};
use lb_api_types::problem::Problem;
use lb_api_types::view::{
    BgpConfiguration, Change, ChangeKind, Changes, Configuration, Difference, Differences, History,
    RunningConfig,
};
use serde_json::{Value, json};

use super::handlers::read_json;
use super::problem::Refused;
use super::terms::{Asked, bulk, nothing, revision, rollback, tagged};
use super::{App, MAX_CONFIG, patch};
use crate::config::bgp::global;
use crate::read::{Cursor, document};
use crate::registry::{Bulk, Documents, Terms};
use crate::resources::bgp::GLOBAL;
use crate::resources::{Kind, Resource, read_tags};
use crate::vip::{self, UNALLOCATED};

/// The configuration that holds: what was made over REST and what the file says, in the form that a `POST` takes. The header
/// ETag is its revision, for If-Match.
#[utoipa::path(get, path = "/api/v1/config", tag = "config",
    responses((status = 200, body = RunningConfig)))]
pub(super) async fn get_config(
    State(app): State<App>,
    asked: Asked,
) -> Result<(HeaderMap, Json<RunningConfig>), Refused> {
    nothing(&asked)?;
    let running = app.registry.running().await?;
    Ok((tagged(running.metadata.revision), Json(running)))
}

/// Creates or replaces many resources in one change: all of them or none. With `prune`, what was made over REST, has the
/// same owner (or none, where none is said) and is not named is removed.
#[utoipa::path(post, path = "/api/v1/config", tag = "config",
    params(("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("confirmWithin" = Option<u32>, Query, minimum = 1, maximum = 3600,
            description = "Seconds; unless it is confirmed by then, everything is as it was before. Other changes are refused meanwhile"),
        ("owner" = Option<String>, Query, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description = "Becomes the owner of what is named, and says whose resources are pruned"),
        ("prune" = Option<bool>, Query, description = "Remove what the owner has and is not named"),
        ("If-Match" = Option<String>, Header, pattern = "^\"[0-9]{1,19}\"$", description = "The revision of the configuration that is changed, in quotes")),
    request_body = Configuration,
    responses((status = 200, body = Changes),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another VIP has an address, port and protocol, one is another than the configuration file says, or another configuration waits to be confirmed"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "If-Match or a metadata.revision is not what is there"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many VIPs")))]
pub(super) async fn apply_config(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Changes>, Refused> {
    let bulk = Bulk { expected: revision(&headers)?, ..bulk(&asked)? };
    let (changes, confirm_within_secs, _) = apply(&app, bulk, &headers, body).await?;
    Ok(Json(Changes { changes, confirm_within_secs }))
}

/// Says what is wrong with a whole configuration, or what would become of it. Nothing changes.
#[utoipa::path(post, path = "/api/v1/config/validate", tag = "config",
    params(("owner" = Option<String>, Query, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description = "As for POST /api/v1/config"),
        ("prune" = Option<bool>, Query, description = "As for POST /api/v1/config")),
    request_body = Configuration,
    responses((status = 200, body = Changes),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "As for POST /api/v1/config"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "A metadata.revision is not what is there"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many")))]
pub(super) async fn validate_config(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Changes>, Refused> {
    let (changes, confirm_within_secs, _) = apply(&app, only_look(&asked)?, &headers, body).await?;
    Ok(Json(Changes { changes, confirm_within_secs }))
}

/// Says what of a whole configuration is other than what there is, before and after. Nothing changes.
#[utoipa::path(post, path = "/api/v1/config/diff", tag = "config",
    params(("owner" = Option<String>, Query, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description = "As for POST /api/v1/config"),
        ("prune" = Option<bool>, Query, description = "As for POST /api/v1/config")),
    request_body = Configuration,
    responses((status = 200, body = Differences),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "As for POST /api/v1/config"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "A metadata.revision is not what is there"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many")))]
pub(super) async fn diff_config(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Differences>, Refused> {
    let bulk = only_look(&asked)?;
    let owner = bulk.owner.clone();
    let (changes, _, documents) = apply(&app, bulk, &headers, body).await?;
    let before = as_it_is(&app).await?;
    let after = as_asked(documents, owner.as_ref(), &before);
    let other = changes.into_iter().filter(|change| change.change != ChangeKind::Unchanged);
    let difference = |Change { kind, name, change }: Change| {
        let key = (kind.clone(), name.clone());
        let after = after.get(&key).filter(|_| change != ChangeKind::Deleted);
        Difference { before: before.get(&key).cloned(), after: after.cloned(), kind, name, change }
    };
    Ok(Json(Differences { differences: other.map(difference).collect() }))
}

/// Documents by kind and name, without what lbd adds of its own.
type Bare = BTreeMap<(String, String), Value>;

async fn as_it_is(app: &App) -> Result<Bare, Refused> {
    let mut all = Bare::new();
    for vip in app.registry.list().await? {
        all.insert(("vip".into(), vip.metadata.name.clone()), bare(&vip));
    }
    for &kind in Kind::ALL {
        for resource in app.registry.list_resources(kind).await? {
            all.insert((kind.noun(), resource.metadata().name.clone()), bare(&resource));
        }
    }
    Ok(all)
}

fn as_asked(documents: Documents, owner: Option<&String>, before: &Bare) -> Bare {
    let mut all = Bare::new();
    for mut vip in documents.vips {
        vip.metadata.owner = owner.cloned().or(vip.metadata.owner);
        let key = ("vip".to_owned(), vip.metadata.name.clone());
        let mut value = bare(&vip);
        if vip.spec.address == UNALLOCATED
            && let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
        {
            // It keeps the one that it has; one that it would be given is not known yet.
            match before.get(&key).and_then(|before| before.pointer("/spec/address")) {
                Some(address) => drop(spec.insert("address".into(), address.clone())),
                None => drop(spec.remove("address")),
            }
        }
        all.insert(key, value);
    }
    for mut resource in documents.resources {
        let metadata = resource.metadata_mut();
        metadata.owner = owner.cloned().or(metadata.owner.take());
        all.insert((resource.kind().noun(), resource.metadata().name.clone()), bare(&resource));
    }
    all
}

fn bare(resource: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(resource).unwrap_or_default();
    patch::merge(&mut value, json!({"status": null, "metadata": {"revision": null}}));
    value
}

/// A request that changes nothing.
fn only_look(asked: &Asked) -> Result<Bulk, Refused> {
    match bulk(asked)? {
        Bulk { dry_run: false, confirm_within: None, prune, owner, expected } => {
            Ok(Bulk { dry_run: true, prune, owner, expected, confirm_within: None })
        }
        _ => Err(Refused::query("dryRun or confirmWithin", "only owner and prune are known here")),
    }
}

/// Carries out what a body says: what became of it, within how long it has to be confirmed, and what it said.
async fn apply(
    app: &App,
    bulk: Bulk,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<Change>, Option<u32>, Documents), Refused> {
    // Before the body is read: many large ones at once would not fit into memory. It is never closed.
    let turns = if bulk.dry_run { &app.looking } else { &app.applying };
    let _turn = turns.acquire().await.ok();
    let body = read_json(headers, body, "application/json", MAX_CONFIG).await?;
    let documents = document(&body, read).map_err(|mistakes| Refused::fields(&mistakes))?;
    let (within, dry_run) = (bulk.confirm_within, bulk.dry_run);
    let applied = app.registry.apply(documents.clone(), bulk).await;
    let changes = applied.map_err(|(place, refusal)| {
        let refused = Refused::from(refusal);
        match place {
            None => refused,
            Some(place) => refused.moved(|field| place.pointer(field)),
        }
    })?;
    let touched = changes.iter().any(|change| change.change != ChangeKind::Unchanged);
    let within = within.filter(|_| touched && !dry_run);
    let confirm_within_secs = within.and_then(|within| u32::try_from(within.as_secs()).ok());
    Ok((changes, confirm_within_secs, documents))
}

/// What lbd's own file says beside resources.
const OF_THE_FILE: [&str; 4] = ["api", "dataplane", "state_dir", "user"];

fn read(cursor: &Cursor<'_>) -> Option<Documents> {
    let sections = Kind::ALL.iter().map(|kind| kind.section());
    let sections = sections.filter(|section| !section.contains('/'));
    let all = cursor.object(&sections.chain(["vips"]).chain(OF_THE_FILE).collect::<Vec<_>>())?;
    for name in OF_THE_FILE {
        if let Some(section) = all.field(name) {
            section.wrong::<()>("is for lbd's own file, which it reads when it starts: write it there, and leave it out here");
        }
    }
    let vips = all.field("vips").map_or_else(|| Some(Vec::new()), |list| list.list(vip::read));
    let bgp = match all.field("bgp") {
        Some(section) => bgp(&section),
        None => Some(Vec::new()),
    };
    let others = Kind::ALL.iter().filter(|kind| !kind.section().starts_with("bgp"));
    let others = others.map(|&kind| many(kind, all.field(kind.section())));
    let others = others.collect::<Option<Vec<_>>>();
    Some(Documents { vips: vips?, resources: [bgp?, others?.concat()].concat() })
}

/// The section `bgp`: what there is one of, and lists.
fn bgp(cursor: &Cursor<'_>) -> Option<Vec<Resource>> {
    let own = [GlobalSpec::FIELDS, &BgpConfiguration::TAGS].concat();
    let lists =
        Kind::ALL.iter().filter_map(|&kind| Some((kind, kind.section().strip_prefix("bgp/")?)));
    let lists: Vec<_> = lists.collect();
    let fields = own.iter().copied().chain(lists.iter().map(|(_, list)| *list));
    let section = cursor.object(&fields.collect::<Vec<_>>())?;
    let tags = read_tags(&section);
    let global = own.iter().any(|name| section.field(name).is_some()).then(|| {
        let metadata = tags.clone().unwrap_or_default().named(GLOBAL);
        Resource::BgpGlobal(Global { metadata, spec: global(&section), status: None })
    });
    let lists = lists.into_iter().map(|(kind, list)| many(kind, section.field(list)));
    let lists = lists.collect::<Option<Vec<_>>>();
    tags.and(Some(global.into_iter().chain(lists?.concat()).collect()))
}

fn many(kind: Kind, list: Option<Cursor<'_>>) -> Option<Vec<Resource>> {
    list.map_or_else(|| Some(Vec::new()), |list| list.list(|cursor| kind.read(cursor)))
}

/// Keeps the configuration that was applied with `confirmWithin`.
#[utoipa::path(post, path = "/api/v1/config/confirm", tag = "config",
    responses((status = 204),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Nothing waits to be confirmed"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The disk refuses, and everything is as it was before")))]
pub(super) async fn confirm_config(
    State(app): State<App>,
    asked: Asked,
) -> Result<StatusCode, Refused> {
    nothing(&asked)?;
    app.registry.confirm().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Goes back: from a configuration that waits to be confirmed to what was before it, otherwise to one that was kept.
#[utoipa::path(post, path = "/api/v1/config/rollback", tag = "config",
    params(("to" = Option<u64>, Query, description = "The revision of what is gone back to, as the history says it; the one before by default"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^\"[0-9]{1,19}\"$", description = "The revision of the configuration that is gone back from, in quotes")),
    responses((status = 200, body = Changes),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It is not kept"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "If-Match is not what is there"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "A VIP of it clashes with the configuration file, or another configuration waits to be confirmed"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses")))]
pub(super) async fn rollback_config(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
) -> Result<Json<Changes>, Refused> {
    let (to, dry_run) = rollback(&asked)?;
    let terms = Terms { expected: revision(&headers)?, dry_run };
    let changes = app.registry.rollback(to, terms).await?;
    Ok(Json(Changes { changes, confirm_within_secs: None }))
}

/// What is and was kept, and whether something waits to be confirmed.
#[utoipa::path(get, path = "/api/v1/config/history", tag = "config",
    responses((status = 200, body = History),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn config_history(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<History>, Refused> {
    nothing(&asked)?;
    Ok(Json(app.registry.history().await?))
}
