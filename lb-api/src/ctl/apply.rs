//! `apply` and `delete`: documents of files, read all before the first is sent.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lb_api_types::view::{BgpConfiguration, Change, ChangeKind, Changes};
use serde_json::{Map, Value, json};

use super::CtlError;
use super::arguments::{Format, Home, Kind, Terms};
use super::client::{Client, segment};
use super::show::{json, path_to, typed, yaml};
use crate::resources;
use crate::yaml;

/// A document of a file.
pub(super) struct Resource {
    /// `None`: a VIP.
    pub(super) kind: Option<resources::Kind>,
    pub(super) name: String,
    pub(super) body: Value,
}

impl Resource {
    /// Where a whole configuration has it, without the number.
    fn section(&self) -> &'static str {
        self.kind.map_or("vips", resources::Kind::section)
    }

    fn is_only(&self) -> bool {
        self.kind.is_some_and(|kind| kind.only().is_some())
    }

    /// What it is called: `vip web`.
    pub(super) fn words(&self) -> String {
        format!("{} {}", noun(self.kind), self.name)
    }
}

/// One of a kind in one word.
pub(super) fn noun(kind: Option<resources::Kind>) -> String {
    kind.map_or("vip".into(), resources::Kind::noun)
}

/// Creates or replaces what the files say, all of it or nothing. With it comes what is there then.
pub(super) async fn apply(
    client: &Client,
    files: &[PathBuf],
    dry_run: bool,
    terms: &Terms,
    format: Format,
) -> Result<(String, Vec<Change>), CtlError> {
    let resources = read_all(files)?;
    let Terms { prune, confirm, owner } = terms;
    let confirm = confirm.map_or(String::new(), |within| format!("&confirmWithin={within}"));
    let owner = owner.as_ref().map_or(String::new(), |o| format!("&owner={}", segment(o)));
    let path = format!("config?dryRun={dry_run}&prune={prune}{confirm}{owner}");
    let answer = client.post(&path, &whole(&resources)).await;
    let answer = answer.map_err(|error| placed(error, &resources))?;
    let mut said = match format {
        Format::Json => json(&answer),
        Format::Yaml => yaml(&answer)?,
        Format::Table | Format::Wide | Format::Name => String::new(),
    };
    let changes: Changes = typed(answer)?;
    match format {
        Format::Json | Format::Yaml => {}
        Format::Name => said = changes.changes.iter().map(name_line).collect(),
        Format::Table | Format::Wide => said = words(&changes.changes, dry_run),
    }
    match (changes.confirm_within_secs, terms.confirm) {
        (Some(within), _) => {
            eprintln!(
                "everything is rolled back in {within} s unless you say `lbctl config confirm`"
            );
        }
        (None, Some(_)) => eprintln!("nothing was changed, so nothing waits to be confirmed"),
        (None, None) => {}
    }
    let there = changes.changes.into_iter().filter(|change| change.change != ChangeKind::Deleted);
    Ok((said, there.collect()))
}

fn name_line(change: &Change) -> String {
    format!("{}/{}\n", change.kind, change.name)
}

/// The documents as one configuration.
pub(super) fn whole(resources: &[Resource]) -> Value {
    let mut whole = json!({});
    for resource in resources {
        let mut steps = resource.section().split('/');
        let section = steps.next().unwrap_or_default();
        match steps.next() {
            None if resource.is_only() => inline(&mut whole[section], &resource.body),
            None => push(&mut whole[section], resource),
            Some(list) => push(&mut whole[section][list], resource),
        }
    }
    whole
}

fn push(list: &mut Value, resource: &Resource) {
    if let Value::Array(all) = list {
        all.push(resource.body.clone());
    } else {
        *list = json!([resource.body]);
    }
}

/// What there is one of stands in its section itself.
fn inline(section: &mut Value, body: &Value) {
    for part in ["metadata", "spec"] {
        let fields = body.get(part).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| part == "spec" || *name != "name") {
            section[name] = value.clone();
        }
    }
}

/// A line for each change.
pub(super) fn words(changes: &[Change], dry_run: bool) -> String {
    let line = |Change { kind, name, change }: &Change| {
        let word = match change {
            ChangeKind::Created => "created",
            ChangeKind::Updated => "updated",
            ChangeKind::Unchanged => "unchanged",
            ChangeKind::Deleted => "deleted",
        };
        format!("{kind} {name} {word}{}\n", dry(dry_run))
    };
    changes.iter().map(line).collect()
}

/// Says which VIP a refusal is about, in place of its number.
pub(super) fn placed(error: CtlError, resources: &[Resource]) -> CtlError {
    let CtlError::Refused(problem) = error else { return error };
    // The longest section that the pointer begins with, and which of it.
    let place = |pointer: &str| {
        let in_it = |resource: &&Resource| {
            let rest = pointer.strip_prefix('/')?.strip_prefix(resource.section())?;
            let number = rest.strip_prefix('/').unwrap_or(rest).split('/').next()?;
            Some(number.parse::<usize>().ok())
        };
        let numbered = resources.iter().find_map(|one| Some((one, in_it(&one)??)));
        match numbered {
            Some((first, number)) => {
                let alike = resources.iter().filter(|one| one.section() == first.section());
                alike.clone().nth(number)
            }
            None => resources.iter().find(|one| one.is_only() && in_it(one).is_some()),
        }
    };
    let one = |pointer: &str, detail: &str| match place(pointer) {
        None => detail.to_owned(),
        Some(resource) => {
            let start = format!("{}[", resource.section().replace('/', "."));
            let number = detail.split_once("].").filter(|(said, _)| said.starts_with(&start));
            let detail = number.map_or(detail, |(_, rest)| rest);
            format!("{} is refused: {detail}", resource.words())
        }
    };
    let all: Vec<_> = match (&problem.errors[..], &problem.pointer) {
        ([], Some(pointer)) => vec![one(pointer, &problem.detail)],
        ([], None) => return CtlError::Refused(problem),
        (errors, _) => errors.iter().map(|error| one(&error.pointer, &error.detail)).collect(),
    };
    CtlError::Other(format!("{}\nnothing was changed", all.join("\n")))
}

/// Where a VIP is changed.
pub(super) fn path(name: &str, dry_run: bool) -> String {
    format!("vips/{}{}", segment(name), if dry_run { "?dryRun=true" } else { "" })
}

/// What is added where nothing happened.
pub(super) fn dry(dry_run: bool) -> &'static str {
    if dry_run { " (dry run)" } else { "" }
}

/// What is said where nothing can be done to what is only seen.
pub(super) fn only_seen(kind: Kind, done: &str) -> CtlError {
    let why = match kind.home() {
        Home::Seen("flows") => "it ends by itself",
        Home::Seen("interfaces") => "dataplane.interfaces of the file says which are attached",
        Home::Seen("status") => "`lbctl doctor` says what to do",
        Home::Seen("config") => "`lbctl apply` and `lbctl config rollback` change it",
        Home::Seen("version") => "an upgrade changes it",
        Home::Seen("events") => "what happened has happened",
        Home::Seen(_) | Home::Kept(_) | Home::Backends | Home::Tokens => {
            "neighbours and the kernel say it"
        }
    };
    CtlError::Other(format!("the kind {} is only seen, and cannot be {done}: {why}", kind.noun()))
}

/// What is said where a backend is not named as one.
pub(super) fn no_backend() -> CtlError {
    CtlError::Usage("a backend is VIP/ADDRESS:PORT, such as web/10.0.0.1:8080".into())
}

/// Removes the one with a name.
pub(super) async fn delete_one(
    client: &Client,
    kind: Kind,
    name: &str,
    dry_run: bool,
) -> Result<String, CtlError> {
    match kind.home() {
        Home::Kept(of) => delete(client, &[(of, name.to_owned())], dry_run).await,
        Home::Tokens => super::tokens::delete(client, name, dry_run).await,
        Home::Backends if name.contains('/') => {
            let query = if dry_run { "?dryRun=true" } else { "" };
            client.delete(&format!("{}{query}", path_to(kind, name)?)).await?;
            Ok(format!("backend {name} deleted{}\n", dry(dry_run)))
        }
        Home::Backends => Err(no_backend()),
        Home::Seen(_) => Err(only_seen(kind, "deleted")),
    }
}

/// Where a resource of a kind is changed.
pub(super) fn path_of(kind: Option<resources::Kind>, name: &str, dry_run: bool) -> String {
    let query = if dry_run { "?dryRun=true" } else { "" };
    let name = segment(name);
    let place = kind.map_or_else(|| format!("vips/{name}"), |kind| kind.place(&name));
    format!("{place}{query}")
}

/// Removes resources by name.
pub(super) async fn delete(
    client: &Client,
    all: &[(Option<resources::Kind>, String)],
    dry_run: bool,
) -> Result<String, CtlError> {
    let (mut said, mut refused) = (String::new(), Vec::new());
    for (kind, name) in all {
        match client.delete(&path_of(*kind, name, dry_run)).await {
            Ok(()) => {
                said.push_str(&format!("{} {name} deleted{}\n", noun(*kind), dry(dry_run)));
            }
            Err(CtlError::Refused(problem)) => refused.push(super::words(&problem)),
            Err(other) => return Err(other),
        }
    }
    finish(said, &refused)
}

/// Removes what files name, VIPs before what they name.
pub(super) async fn delete_files(
    client: &Client,
    files: &[PathBuf],
    dry_run: bool,
) -> Result<String, CtlError> {
    let all = read_all(files)?.into_iter();
    let mut all: Vec<_> = all.map(|resource| (resource.kind, resource.name)).collect();
    all.sort_by_key(|(kind, _)| kind.is_some());
    delete(client, &all, dry_run).await
}

/// What files say, all of them before the first is sent.
pub(super) fn read_all(files: &[PathBuf]) -> Result<Vec<Resource>, CtlError> {
    let mut resources = Vec::new();
    for file in files {
        resources.extend(read(file)?);
    }
    Ok(resources)
}

pub(super) fn finish(said: String, refused: &[String]) -> Result<String, CtlError> {
    if refused.is_empty() {
        return Ok(said);
    }
    super::print(&said);
    Err(CtlError::Other(refused.join("\n")))
}

fn read(file: &Path) -> Result<Vec<Resource>, CtlError> {
    let mut text = String::new();
    let (name, outcome) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(drop))
    } else {
        (file.display().to_string(), fs::read_to_string(file).map(|read| text = read))
    };
    outcome.map_err(|error| CtlError::Other(format!("cannot read {name}: {error}")))?;
    parse(&name, &text)
}

fn parse(file: &str, text: &str) -> Result<Vec<Resource>, CtlError> {
    let documents = yaml::documents(text).map_err(|broken| {
        let line = broken.line.map_or(String::new(), |line| format!(":{line}"));
        CtlError::Other(format!("{file}{line} {broken}"))
    })?;
    let mut resources = Vec::new();
    let empty = documents.is_empty();
    for (place, document) in documents.into_iter().enumerate() {
        let read = all_of(document);
        resources.extend(
            read.map_err(|why| CtlError::Other(format!("{file}, document {}: {why}", place + 1)))?,
        );
    }
    if empty {
        return Err(CtlError::Other(format!("{file} has no document: write a VIP into it")));
    }
    if resources.iter().filter(|resource| resource.is_only()).count() > 1 {
        let why = "says twice what BGP has in common for all neighbours: leave one of the two out";
        return Err(CtlError::Other(format!("{file} {why}")));
    }
    Ok(resources)
}

/// The resources of a document: one, a list as `get -o yaml` writes it, or a whole configuration.
fn all_of(mut document: Value) -> Result<Vec<Resource>, String> {
    if let Some(Value::Array(items)) = document.get_mut("items") {
        return std::mem::take(items).into_iter().map(resource).collect();
    }
    let is_one = ["kind", "metadata", "spec"].iter().any(|field| document.get(field).is_some());
    if !is_one && let Value::Object(sections) = document {
        return configuration(sections);
    }
    Ok(vec![resource(document)?])
}

/// What a whole configuration says, in the form of lbd's own file or that of `POST /api/v1/config`.
fn configuration(sections: Map<String, Value>) -> Result<Vec<Resource>, String> {
    let mut all = Vec::new();
    for (name, section) in sections {
        let kind = resources::Kind::ALL.iter().find(|kind| kind.section() == name);
        match (name.as_str(), kind) {
            (_, _) if section.is_null() => {}
            ("vips", _) => all.extend(list(None, &name, section)?),
            ("bgp", _) => all.extend(bgp(section)?),
            (_, Some(kind)) => all.extend(list(Some(*kind), &name, section)?),
            ("dataplane" | "api" | "user" | "state_dir", None) => {
                return Err(format!(
                    "`{name}` is for lbd's own file, which it reads when it starts: leave it out here"
                ));
            }
            (_, None) => {
                return Err(format!(
                    "is no resource and no configuration: it has no metadata, and nothing has a section `{name}`"
                ));
            }
        }
    }
    Ok(all)
}

fn bgp(section: Value) -> Result<Vec<Resource>, String> {
    let Value::Object(fields) = section else {
        return Err("`bgp` is no mapping of fields".into());
    };
    let (mut all, mut metadata, mut spec) = (Vec::new(), Map::new(), Map::new());
    for (name, value) in fields {
        let in_it = |kind: &&resources::Kind| kind.section().strip_prefix("bgp/") == Some(&name);
        if value.is_null() {
            continue;
        }
        match resources::Kind::ALL.iter().find(in_it) {
            Some(kind) => all.extend(list(Some(*kind), &name, value)?),
            None if BgpConfiguration::TAGS.contains(&name.as_str()) => {
                metadata.insert(name, value);
            }
            None => {
                spec.insert(name, value);
            }
        }
    }
    if !metadata.is_empty() || !spec.is_empty() {
        let kind = resources::Kind::BgpGlobal;
        let name = kind.only().unwrap_or_default().to_owned();
        metadata.insert("name".into(), json!(name));
        let body = json!({"metadata": metadata, "spec": spec});
        all.push(Resource { kind: Some(kind), name, body });
    }
    Ok(all)
}

fn list(kind: Option<resources::Kind>, name: &str, list: Value) -> Result<Vec<Resource>, String> {
    let Value::Array(items) = list else { return Err(format!("`{name}` is no list")) };
    let one = |(place, mut body): (usize, Value)| {
        if kind.is_some_and(|kind| kind.section().starts_with("bgp/")) {
            in_full(&mut body);
        }
        let read = resource(body).map_err(|why| format!("{name}[{place}]: {why}"))?;
        Ok(Resource { kind, ..read })
    };
    items.into_iter().enumerate().map(one).collect()
}

/// Neighbours, groups, policies and sets may be written for short in lbd's file, with the name beside the fields.
fn in_full(body: &mut Value) {
    let Value::Object(fields) = body else { return };
    if fields.contains_key("metadata") || fields.contains_key("spec") {
        return;
    }
    let metadata = ["name", "labels", "owner"].iter();
    let metadata = metadata.filter_map(|name| fields.remove_entry(*name)).collect::<Map<_, _>>();
    *body = json!({"metadata": metadata, "spec": std::mem::take(fields)});
}

fn resource(mut body: Value) -> Result<Resource, String> {
    let Value::Object(fields) = &mut body else {
        return Err("is no mapping, but has to be a resource with metadata and spec".into());
    };
    let kind = match fields.remove("kind") {
        None => None,
        Some(Value::String(kind)) if kind == "Vip" => None,
        Some(kind) => match resources::Kind::ALL.iter().find(|known| kind == known.name()) {
            Some(known) => Some(*known),
            None => {
                let known: Vec<_> = resources::Kind::ALL.iter().map(|kind| kind.name()).collect();
                return Err(format!("kind is {kind}, but has to be Vip, {}", known.join(", ")));
            }
        },
    };
    // What lbd adds of its own: a file says what is wanted, whatever was there before.
    fields.remove("status");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.remove("revision");
    }
    match body.pointer("/metadata/name") {
        Some(Value::String(name)) => Ok(Resource { kind, name: name.clone(), body }),
        Some(_) => Err("metadata.name has to be text".into()),
        None => Err("metadata.name is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let resources = parse("x.yaml", text).map_err(|error| error.to_string())?;
        Ok(resources.into_iter().map(|resource| resource.name).collect())
    }

    #[test]
    fn a_refusal_names_its_vip_and_field() {
        let resources = parse("x.yaml", "metadata: {name: a}\n---\nmetadata: {name: b}").unwrap();
        let problem = |pointer: &str, detail: &str| {
            let value = json!({"type": "", "title": "", "status": 422, "detail": detail, "pointer": pointer});
            CtlError::Refused(serde_json::from_value(value).unwrap())
        };
        let field = placed(problem("/vips/1/spec/port", "vips[1].spec.port is 0"), &resources);
        assert_eq!(field.to_string(), "vip b is refused: spec.port is 0\nnothing was changed");
        let whole = placed(problem("/vips/0", "VIP a comes from the file"), &resources);
        assert!(whole.to_string().starts_with("vip a is refused: VIP a comes from the file"));
    }

    #[test]
    fn documents_lists_and_kinds_are_read() {
        let text = "kind: Vip\nmetadata: {name: a, revision: 7}\n---\nmetadata: {name: b}\nstatus: {x: 1}\n---\nitems:\n- metadata: {name: c}\n";
        assert_eq!(names(text).unwrap(), ["a", "b", "c"]);
        assert_eq!(names("{\"metadata\": {\"name\": \"a\"}}").unwrap(), ["a"]);
        let resources = parse("x.yaml", text).unwrap();
        assert_eq!(resources[0].body, serde_json::json!({"metadata": {"name": "a"}}));
    }

    #[test]
    fn what_is_no_vip_is_refused_with_its_place() {
        for (text, said) in [
            ("", "no document"),
            (
                "metadata: {name: a}\n---\nkind: Pod\nmetadata: {name: b}",
                "document 2: kind is \"Pod\"",
            ),
            ("spec: {}", "metadata.name is missing"),
            ("metadata: {name: 7}", "metadata.name has to be text"),
            ("[1]", "no mapping"),
            ("a: [", "x.yaml:2 is not well-formed"),
        ] {
            let error = names(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
