//! Items of lists that have names: as every resource is written, `{metadata: {name: …}, spec: {…}}`, or for short,
//! `{name: …, …}`.

use crate::read::{Cursor, Object};

/// Where the name stands, if it has one, and what is asked for, of these fields.
pub(super) fn parts<'a>(
    cursor: &Cursor<'a>,
    fields: &[&'static str],
    needs_name: bool,
) -> Option<(Option<Cursor<'a>>, Object<'a>)> {
    if !cursor.has("metadata") && !cursor.has("spec") {
        let object = cursor.object(&[&["name"][..], fields].concat())?;
        let name = if needs_name { object.required("name") } else { object.field("name") };
        return Some((name, object));
    }
    let object = cursor.object(&["metadata", "spec"])?;
    // Labels and owners are for what is made over REST: nothing selects what the file says by them.
    let metadata = object.required("metadata").and_then(|cursor| cursor.object(&["name"]));
    let name = metadata.and_then(|metadata| metadata.required("name"));
    let spec = object.required("spec").and_then(|spec| spec.object(fields))?;
    Some((name, spec))
}
