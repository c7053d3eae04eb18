//! The section `api`: where the API listens, and who may use it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use lb_api_types::access::Role;
use lb_api_types::config::{Api, SocketUser, Tls, TlsClient};

use super::credential;
use crate::read::{Cursor, Object};

/// What the kernel takes for the path of a socket.
const MAX_SOCKET_PATH: usize = 107;
/// Users of the socket at most.
const MAX_USERS: usize = 64;
/// Clients with certificates at most.
const MAX_CLIENTS: usize = 1024;
/// What a role is called.
pub(crate) const ROLES: &[(&str, Role)] =
    &[("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)];

pub(super) fn api(cursor: &Cursor<'_>) -> Option<Api> {
    let section = cursor.object(&["socket", "users", "listen", "tls"])?;
    let tls = section.field("tls").map(|tls| read_tls(&tls));
    Some(Api {
        socket: section
            .field("socket")
            .and_then(|path| socket(&path))
            .unwrap_or_else(|| Api::default().socket),
        users: section.field("users").and_then(|list| users(&list)).unwrap_or_default(),
        listen: listen(&section, tls.is_some()),
        tls: tls.flatten(),
    })
}

fn socket(cursor: &Cursor<'_>) -> Option<PathBuf> {
    let path = cursor.file()?;
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return cursor.wrong(format!(
            "is longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have"
        ));
    }
    Some(path)
}

fn users(cursor: &Cursor<'_>) -> Option<Vec<SocketUser>> {
    let users = cursor.list(|cursor| {
        let user = cursor.object(&["user", "role"])?;
        let name = user.required("user").and_then(|name| Some(name.text()?.to_owned()));
        let role = user.required("role").and_then(|role| role.one_of(ROLES));
        Some(SocketUser { user: name?, role: role? })
    })?;
    if users.len() > MAX_USERS {
        return cursor.wrong(format!("lists more than {MAX_USERS}: let them share a user"));
    }
    Some(users)
}

fn listen(section: &Object<'_>, has_tls: bool) -> Option<SocketAddr> {
    let Some(field) = section.field("listen") else {
        if has_tls {
            section.missing::<()>("listen", "`tls` is there, so say where to listen");
        }
        return None;
    };
    let listen = field.socket()?;
    if !listen.ip().is_loopback() && !has_tls {
        return field.wrong(format!(
            "is {listen}, which others reach: say `tls` with certificate_file and key_file, or use 127.0.0.1:{}",
            listen.port()
        ));
    }
    Some(listen)
}

fn read_tls(cursor: &Cursor<'_>) -> Option<Tls> {
    let tls = cursor.object(&["certificate_file", "key_file", "client_ca_file", "clients"])?;
    let certificate = tls.required("certificate_file").and_then(|file| credential::file(&file));
    let key = tls.required("key_file").and_then(|file| credential::file(&file));
    let ca = tls.field("client_ca_file").map(|file| credential::file(&file));
    let listed = tls.field("clients");
    if let (None, Some(listed)) = (&ca, &listed) {
        return listed.wrong("is only for certificates that `client_ca_file` signs: say that file");
    }
    let clients = listed.map_or_else(|| Some(Vec::new()), |listed| read_clients(&listed));
    Some(Tls {
        certificate_file: certificate?,
        key_file: key?,
        client_ca_file: ca.map_or(Some(None), |ca| ca.map(Some))?,
        clients: clients?,
    })
}

fn read_clients(cursor: &Cursor<'_>) -> Option<Vec<TlsClient>> {
    let mut seen = BTreeSet::new();
    let clients = cursor.list(|cursor| {
        let client = cursor.object(&["name", "role"])?;
        let name = client.required("name").and_then(|name| {
            let text = name.text()?;
            if !seen.insert(text.to_owned()) {
                return name.wrong(format!("repeats the client `{text}`: list it once"));
            }
            Some(text.to_owned())
        });
        let role = client.required("role").and_then(|role| role.one_of(ROLES));
        Some(TlsClient { name: name?, role: role? })
    })?;
    if clients.len() > MAX_CLIENTS {
        return cursor.wrong(format!("lists more than {MAX_CLIENTS}: let them share a name"));
    }
    Some(clients)
}
