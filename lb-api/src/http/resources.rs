//! Resources beside VIPs: the same operations for every kind, so they are written once.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use lb_api_types::view::List;
use serde_json::{Value, json};
use utoipa::openapi::path::PathItem;

use super::handlers::{Name, PATCH_TRIES, json as read_body};
use super::problem::Refused;
use super::terms::{Asked, etag, name, nothing, page, terms};
use super::{App, patch};
use crate::read::document;
use crate::registry::{Expected, Refusal, Terms};
use crate::resources::{Key, Kind, Resource};

type Changed = Result<(StatusCode, HeaderMap, Json<Resource>), Refused>;

/// The operations of every kind.
pub(super) fn routes() -> Router<App> {
    Kind::ALL.iter().fold(Router::new(), |router, &kind| {
        let many = format!("/{}", kind.path());
        let one = format!("{many}/{{name}}");
        let list = move |State(app), asked| list(kind, app, asked);
        let read = move |State(app), path, asked| read(kind, app, path, asked);
        let put = move |State(app), path, asked, headers, body: Body| {
            put(kind, app, path, asked, headers, body)
        };
        let patch = move |State(app), path, asked, headers, body: Body| {
            patch_one(kind, app, path, asked, headers, body)
        };
        let delete =
            move |State(app), path, asked, headers| delete(kind, app, path, asked, headers);
        router.route(&many, get(list)).route(&one, get(read).put(put).patch(patch).delete(delete))
    })
}

async fn list(kind: Kind, app: App, asked: Asked) -> Result<Json<List<Resource>>, Refused> {
    let page = page(&asked)?;
    let mut listed = page.of(app.registry.list_resources(kind).await?, Resource::metadata);
    sessions(&app, &mut listed.items).await;
    Ok(Json(listed))
}

async fn read(
    kind: Kind,
    app: App,
    path: Name,
    asked: Asked,
) -> Result<(HeaderMap, Json<Resource>), Refused> {
    nothing(&asked)?;
    let mut resource = app.registry.get_resource(&Key(kind, name(path)?)).await?;
    sessions(&app, std::slice::from_mut(&mut resource)).await;
    Ok((etag(resource.metadata()), Json(resource)))
}

/// Says of neighbours how their sessions are.
async fn sessions(app: &App, resources: &mut [Resource]) {
    if !resources.iter().any(|resource| resource.kind() == Kind::Peer) {
        return;
    }
    let views = app.views.peers().await;
    let mut by_address: HashMap<_, _> =
        views.into_iter().map(|view| (view.address.to_canonical(), view)).collect();
    for resource in resources {
        if let Resource::Peer(peer) = resource {
            peer.status = by_address.remove(&peer.spec.address.to_canonical());
        }
    }
}

async fn put(
    kind: Kind,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (name, terms) = (name(path)?, terms(&headers, &asked)?);
    let body = read_body(&headers, body, "application/json").await?;
    changed(app.registry.put_resource(resource(kind, &name, &body)?, terms).await?)
}

async fn patch_one(
    kind: Kind,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (key, terms) = (Key(kind, name(path)?), terms(&headers, &asked)?);
    let patch = read_body(&headers, body, "application/merge-patch+json").await?;
    let mut outcome = patch_once(&app, &key, &patch, terms).await?;
    for _ in 1..PATCH_TRIES {
        match outcome {
            Err(Refusal::Stale { .. })
                if matches!(terms.expected, Expected::Any | Expected::Something) =>
            {
                outcome = patch_once(&app, &key, &patch, terms).await?;
            }
            Ok(_) | Err(_) => break,
        }
    }
    changed(outcome?)
}

/// Reads, merges and replaces what was read; if it is there no longer, that is the inner error.
async fn patch_once(
    app: &App,
    key: &Key,
    patch: &Value,
    terms: Terms,
) -> Result<Result<(Resource, bool), Refusal>, Refused> {
    let current = app.registry.get_resource(key).await?;
    let revision = current.metadata().revision;
    let mut merged = serde_json::to_value(&current).map_err(|error| Refused::json(&error))?;
    patch::merge(&mut merged, json!({"status": null, "metadata": {"revision": null}}));
    patch::merge(&mut merged, patch.clone());
    let resource = resource(key.0, &key.1, &merged)?;
    // A revision of the client's own is what it has to match.
    let expected = match (terms.expected, resource.metadata().revision) {
        (Expected::Any | Expected::Something, None) => {
            revision.map_or(Expected::Any, Expected::Revision)
        }
        (expected, _) => expected,
    };
    Ok(app.registry.put_resource(resource, Terms { expected, ..terms }).await)
}

async fn delete(
    kind: Kind,
    app: App,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let terms = terms(&headers, &asked)?;
    app.registry.delete_resource(&Key(kind, name(path)?), terms).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn resource(kind: Kind, name: &str, body: &Value) -> Result<Resource, Refused> {
    let read = document(body, |cursor| kind.read(cursor));
    let resource = read.map_err(|mistakes| Refused::fields(&mistakes))?;
    match &resource.metadata().name {
        said if said == name => Ok(resource),
        said => Err(Refused::name_differs(name, said)),
    }
}

fn changed((resource, created): (Resource, bool)) -> Changed {
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, etag(resource.metadata()), Json(resource)))
}

/// The description of a kind's operations: of all of them, and of one.
pub(super) fn described(kind: Kind) -> [(String, PathItem); 2] {
    let (schema, _) = kind.schemas();
    let (many, one) = operations(kind, &format!("#/components/schemas/{schema}"));
    let item = |value| serde_json::from_value(value).expect("it is written as OpenAPI says");
    let path = format!("/api/v1/{}", kind.path());
    [(path.clone(), item(many)), (format!("{path}/{{name}}"), item(one))]
}

fn operations(kind: Kind, schema: &str) -> (Value, Value) {
    let (word, id) = (kind.word(), kind.many());
    let problem = |words: &str| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        json!({"description": words, "content": {"application/problem+json": {"schema": schema}}})
    };
    let answer = |words: &str| json!({"description": words, "content": {"application/json": {"schema": {"$ref": schema}}}});
    let query = |name: &str, schema: Value, words: &str| json!({"name": name, "in": "query", "required": false, "schema": schema, "description": words});
    let header = |name: &str, pattern: &str, words: &str| {
        let schema = json!({"type": "string", "pattern": pattern});
        json!({"name": name, "in": "header", "required": false, "schema": schema, "description": words})
    };
    let path = json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"},
        "description": format!("The {word}'s name, as in metadata.name")});
    let dry_run = query("dryRun", json!({"type": "boolean"}), "Only say what would become of it");
    let if_match = header(
        "If-Match",
        "^([*]|\"[0-9]{1,19}\")$",
        "The revision that is replaced, in quotes, or * for any",
    );
    let if_none = header("If-None-Match", "^[*]$", "* creates only");
    let missing = problem("There is none of this name");
    let conflict = problem(
        "It comes from the configuration file, or a VIP needs it as it is, or a configuration waits to be confirmed",
    );
    let stale = problem("A precondition or metadata.revision is not what is there");
    let body = |kind: &str, schema: Value| json!({"required": true, "content": {kind: {"schema": schema}}});
    let writes = json!({
        "200": answer("It was there before"), "400": problem("No JSON"),
        "408": problem("The body is slow"), "409": conflict, "412": stale,
        "413": problem("More than 1 MiB"), "415": problem("Not the content type that is wanted"),
        "422": problem("A field is wrong"), "503": problem("The dataplane or the disk refuses"),
    });
    let with = |more: Value| {
        let mut all = writes.clone();
        patch::merge(&mut all, more);
        all
    };
    let list = json!({"type": "object", "required": ["items"], "properties": {
        "items": {"type": "array", "items": {"$ref": schema}},
        "truncated": {"type": "boolean"}, "next": {"type": ["string", "null"]}}});
    let listed = json!({"description": "", "content": {"application/json": {"schema": list}}});
    let many = json!({"get": {
        "tags": [id], "operationId": format!("list_{id}"), "summary": format!("Every {word} by name, with its status."),
        "parameters": [
            query("limit", json!({"type": "integer", "minimum": 1, "maximum": super::MAX_LIMIT}), "Items at most; all by default"),
            query("cursor", json!({"type": "string"}), "What the page before says as `next`"),
            query("labelSelector", json!({"type": "string"}), "Only those with such labels: app=web,tier!=test,canary,!old"),
        ],
        "responses": {"200": listed},
    }});
    let one = json!({
        "get": {"tags": [id], "operationId": format!("get_{id}"),
            "summary": format!("A {word} with its status. The header ETag is its revision, for If-Match."),
            "parameters": [path], "responses": {"200": answer("It"), "404": missing}},
        "put": {"tags": [id], "operationId": format!("put_{id}"),
            "summary": format!("Creates or replaces a {word}. On an error nothing changes."),
            "parameters": [path, dry_run, if_match, if_none],
            "requestBody": body("application/json", json!({"$ref": schema})),
            "responses": with(json!({"201": answer("It is new"), "507": problem("Too many of the kind")}))},
        "patch": {"tags": [id], "operationId": format!("patch_{id}"),
            "summary": format!("Changes fields of a {word} by a JSON Merge Patch (RFC 7396)."),
            "parameters": [path, dry_run, if_match],
            "requestBody": body("application/merge-patch+json", json!({"type": "object"})),
            "responses": with(json!({"404": missing}))},
        "delete": {"tags": [id], "operationId": format!("delete_{id}"), "summary": format!("Removes a {word}."),
            "parameters": [path, dry_run, if_match],
            "responses": {"204": {"description": "It is gone"}, "404": missing, "409": conflict, "412": stale,
                "503": problem("The disk refuses")}},
    });
    (many, one)
}
