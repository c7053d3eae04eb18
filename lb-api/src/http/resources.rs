//! VIPs and the resources beside them: the same operations for every kind, so they are written once.

mod description;

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use lb_api_types::peer::{Peer, PeerOptions, PeerSpec};
use lb_api_types::resource::Metadata;
use lb_api_types::view::List;
use lb_api_types::vip::Vip;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub(super) use self::description::described;
use super::App;
use super::handlers::{Name, json as read_body};
use super::patch::{self, Tries};
use super::problem::Refused;
use super::terms::{Asked, etag, name, nothing, page, terms};
use crate::read::{Cursor, document};
use crate::registry::{Expected, Refusal, Terms};
use crate::resources::{Key, Kind, Resource, routing};
use crate::vip;

/// What has these operations.
#[derive(Clone, Copy)]
pub(super) enum Collection {
    Vips,
    Of(Kind),
}

/// One of them.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Document {
    Vip(Box<Vip>),
    Of(Box<Resource>),
}

impl Document {
    fn metadata(&self) -> &Metadata {
        match self {
            Self::Vip(vip) => &vip.metadata,
            Self::Of(resource) => resource.metadata(),
        }
    }
}

impl Collection {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::Vips].into_iter().chain(Kind::ALL.iter().map(|&kind| Self::Of(kind)))
    }

    fn word(self) -> &'static str {
        match self {
            Self::Vips => "VIP",
            Self::Of(kind) => kind.word(),
        }
    }

    fn many(self) -> &'static str {
        match self {
            Self::Vips => "vips",
            Self::Of(kind) => kind.many(),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Vips => "vips",
            Self::Of(kind) => kind.path(),
        }
    }

    fn only(self) -> Option<&'static str> {
        match self {
            Self::Vips => None,
            Self::Of(kind) => kind.only(),
        }
    }

    /// The name of its schema, the schema, and those that it refers to.
    pub(super) fn schemas(self) -> (String, Vec<(String, RefOr<Schema>)>) {
        match self {
            Self::Vips => {
                let name = <Vip as ToSchema>::name().into_owned();
                let mut all = vec![(name.clone(), <Vip as PartialSchema>::schema())];
                <Vip as ToSchema>::schemas(&mut all);
                (name, all)
            }
            Self::Of(kind) => kind.schemas(),
        }
    }

    fn read(self, cursor: &Cursor<'_>) -> Option<Document> {
        match self {
            Self::Vips => vip::read(cursor).map(|vip| Document::Vip(Box::new(vip))),
            Self::Of(kind) => kind.read(cursor).map(|one| Document::Of(Box::new(one))),
        }
    }

    async fn all_of(self, app: &App) -> Result<Vec<Document>, Refusal> {
        let of = |resource| Document::Of(Box::new(resource));
        Ok(match self {
            Self::Vips => {
                let vips = app.registry.list().await?.into_iter();
                vips.map(|vip| Document::Vip(Box::new(vip))).collect()
            }
            Self::Of(kind) => {
                let resources = app.registry.list_resources(kind).await?;
                let come = if kind == Kind::Peer { dynamic(app).await } else { Vec::new() };
                let all = resources.into_iter().chain(come.into_iter().map(Resource::Peer));
                let mut all: Vec<_> = all.map(of).collect();
                // Pages are by name.
                all.sort_by(|one, other| one.metadata().name.cmp(&other.metadata().name));
                all
            }
        })
    }

    async fn one_of(self, app: &App, name: &str) -> Result<Document, Refusal> {
        Ok(match self {
            Self::Vips => Document::Vip(Box::new(app.registry.get(name).await?)),
            Self::Of(kind) => {
                let key = Key(kind, name.to_owned());
                let found = match app.registry.get_resource(&key).await {
                    Err(Refusal::Unknown(unknown)) if kind == Kind::Peer => {
                        let come = dynamic(app).await.into_iter();
                        let mut one = come.filter(|peer| peer.metadata.name == name);
                        one.next().map(Resource::Peer).ok_or(Refusal::Unknown(unknown))
                    }
                    found => found,
                };
                Document::Of(Box::new(found?))
            }
        })
    }

    async fn remove(self, app: &App, name: String, terms: Terms) -> Result<(), Refusal> {
        match self {
            Self::Vips => app.registry.delete(&name, terms).await,
            Self::Of(kind) => app.registry.delete_resource(&Key(kind, name), terms).await,
        }
    }
}

/// Creates or replaces one: with it comes whether it is new.
async fn put_document(
    app: &App,
    document: Document,
    terms: Terms,
) -> Result<(Document, bool), Refusal> {
    match document {
        Document::Vip(vip) => {
            let applied = app.registry.put(*vip, terms).await?;
            Ok((Document::Vip(Box::new(applied.vip)), applied.created))
        }
        Document::Of(resource) => {
            let (resource, created) = app.registry.put_resource(*resource, terms).await?;
            Ok((Document::Of(Box::new(resource)), created))
        }
    }
}

type Changed = Result<(StatusCode, HeaderMap, Json<Document>), Refused>;

/// The operations of every kind.
pub(super) fn routes() -> Router<App> {
    Collection::all().fold(Router::new(), |router, of| {
        let many = format!("/{}", of.path());
        if let Some(name) = of.only() {
            return router.route(&many, of_the_only_one(of, name));
        }
        let one = format!("{many}/{{name}}");
        let list = move |State(app), asked| list(of, app, asked);
        let read = move |State(app), path, asked| read(of, app, path, asked);
        let put = move |State(app), path, asked, headers, body: Body| {
            put(of, app, path, asked, headers, body)
        };
        let patch = move |State(app), path, asked, headers, body: Body| {
            patch_one(of, app, path, asked, headers, body)
        };
        let delete = move |State(app), path, asked, headers| delete(of, app, path, asked, headers);
        router.route(&many, get(list)).route(&one, get(read).put(put).patch(patch).delete(delete))
    })
}

/// The operations of one whose path needs no name.
fn of_the_only_one(of: Collection, name: &'static str) -> MethodRouter<App> {
    let path = move || Ok(Path(name.to_owned()));
    let read = move |State(app), asked| read(of, app, path(), asked);
    let put =
        move |State(app), asked, headers, body: Body| put(of, app, path(), asked, headers, body);
    let patch = move |State(app), asked, headers, body: Body| {
        patch_one(of, app, path(), asked, headers, body)
    };
    let delete = move |State(app), asked, headers| delete(of, app, path(), asked, headers);
    get(read).put(put).patch(patch).delete(delete)
}

async fn list(of: Collection, app: App, asked: Asked) -> Result<Json<List<Document>>, Refused> {
    let page = page(&asked)?;
    let mut listed = page.of(of.all_of(&app).await?, Document::metadata);
    routed(&app, &mut listed.items).await;
    sessions(&app, &mut listed.items).await;
    Ok(Json(listed))
}

async fn read(
    of: Collection,
    app: App,
    path: Name,
    asked: Asked,
) -> Result<(HeaderMap, Json<Document>), Refused> {
    nothing(&asked)?;
    let mut one = of.one_of(&app, &name(path)?).await?;
    routed(&app, std::slice::from_mut(&mut one)).await;
    sessions(&app, std::slice::from_mut(&mut one)).await;
    if let Document::Of(resource) = &mut one
        && let Resource::BgpGlobal(global) = &mut **resource
    {
        global.status = Some(app.views.global().await);
    }
    Ok((etag(one.metadata()), Json(one)))
}

/// Says of static routes and addresses how they are.
async fn routed(app: &App, all: &mut [Document]) {
    if !all.iter_mut().any(|one| of_routing(one).is_some()) {
        return;
    }
    let told = app.views.statics().await;
    for one in all {
        if let Some(resource) = of_routing(one) {
            routing::note(resource, &told);
        }
    }
}

fn of_routing(one: &mut Document) -> Option<&mut Resource> {
    if let Document::Of(resource) = one
        && matches!(resource.kind(), Kind::StaticRoute | Kind::Address)
    {
        return Some(resource);
    }
    None
}

/// Neighbours that came by themselves, as if somebody had named them by their addresses.
pub(super) async fn dynamic(app: &App) -> Vec<Peer> {
    let views = app.views.peers().await.into_iter();
    let come = views.filter_map(|view| {
        let metadata = Metadata { name: view.name.clone(), ..Metadata::default() };
        let (address, group) = (view.address, Some(view.dynamic.clone()?));
        let spec = PeerSpec { address, group, options: PeerOptions::default() };
        Some(Peer { metadata, spec, status: Some(view) })
    });
    come.collect()
}

/// Says of neighbours how their sessions are.
async fn sessions(app: &App, all: &mut [Document]) {
    if !all.iter_mut().any(|one| peer(one).is_some()) {
        return;
    }
    let views = app.views.peers().await;
    let mut by_address: HashMap<_, _> =
        views.into_iter().map(|view| (view.address.to_canonical(), view)).collect();
    for one in all {
        if let Some(peer) = peer(one) {
            peer.status = by_address.remove(&peer.spec.address.to_canonical());
        }
    }
}

fn peer(one: &mut Document) -> Option<&mut Peer> {
    if let Document::Of(resource) = one
        && let Resource::Peer(peer) = &mut **resource
    {
        return Some(peer);
    }
    None
}

async fn put(
    of: Collection,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (name, terms) = (name(path)?, terms(&headers, &asked)?);
    let body = read_body(&headers, body, "application/json").await?;
    changed(put_document(&app, named(of, &name, &body)?, terms).await?)
}

async fn patch_one(
    of: Collection,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (name, terms) = (name(path)?, terms(&headers, &asked)?);
    let patch = read_body(&headers, body, "application/merge-patch+json").await?;
    let mut tries = Tries::default();
    loop {
        let outcome = patch_once(of, &app, &name, &patch, terms).await?;
        if !tries.again(terms, &outcome) {
            return changed(outcome?);
        }
    }
}

/// Reads, merges and replaces what was read; if it is there no longer, that is the inner error.
async fn patch_once(
    of: Collection,
    app: &App,
    name: &str,
    patch: &Value,
    terms: Terms,
) -> Result<Result<(Document, bool), Refusal>, Refused> {
    let current = of.one_of(app, name).await?;
    let revision = current.metadata().revision;
    let mut merged = serde_json::to_value(&current).map_err(|error| Refused::json(&error))?;
    patch::merge(&mut merged, json!({"status": null, "metadata": {"revision": null}}));
    patch::merge(&mut merged, patch.clone());
    let wanted = named(of, name, &merged)?;
    // A revision of the client's own is what it has to match.
    let expected = match (terms.expected, wanted.metadata().revision) {
        (Expected::Any | Expected::Something, None) => {
            revision.map_or(Expected::Any, Expected::Revision)
        }
        (expected, _) => expected,
    };
    Ok(put_document(app, wanted, Terms { expected, ..terms }).await)
}

async fn delete(
    of: Collection,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let terms = terms(&headers, &asked)?;
    of.remove(&app, name(path)?, terms).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a body says, which has the path's name.
fn named(of: Collection, name: &str, body: &Value) -> Result<Document, Refused> {
    let read = document(body, |cursor| of.read(cursor));
    let one = read.map_err(|mistakes| Refused::fields(&mistakes))?;
    match &one.metadata().name {
        said if said == name => Ok(one),
        said => Err(Refused::name_differs(name, said)),
    }
}

fn changed((one, created): (Document, bool)) -> Changed {
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, etag(one.metadata()), Json(one)))
}
