//! Items of lists that have names: as every resource is written, `{metadata: {name: …}, spec: {…}}`, or for short,
//! `{name: …, …}`.

use lb_api_types::resource::Tags;

use crate::read::{Cursor, Object};
use crate::resources::read_tags;

/// What is said of an item beside what is asked for.
const METADATA: [&str; 3] = ["name", "labels", "owner"];

/// Where the name stands, if it has one, its labels and owner, and what is asked for, of these fields.
pub(super) fn parts<'a>(
    cursor: &Cursor<'a>,
    fields: &[&'static str],
    needs_name: bool,
) -> Option<(Option<Cursor<'a>>, Tags, Object<'a>)> {
    if !cursor.has("metadata") && !cursor.has("spec") {
        let object = cursor.object(&[&METADATA, fields].concat())?;
        let name = if needs_name { object.required("name") } else { object.field("name") };
        return Some((name, read_tags(&object)?, object));
    }
    let object = cursor.object(&["metadata", "spec"])?;
    let metadata = object.required("metadata").and_then(|cursor| cursor.object(&METADATA));
    let name = metadata.as_ref().and_then(|metadata| metadata.required("name"));
    let tags = metadata.as_ref().and_then(read_tags);
    let spec = object.required("spec").and_then(|spec| spec.object(fields))?;
    Some((name, tags?, spec))
}
