//! `drain` and `undrain`: backends of VIPs by their address, all of a VIP's, or this node.

use lb_api_types::vip::Vip;
use serde_json::{Value, json};

use super::CtlError;
use super::apply::{dry, finish, path, path_of};
use super::arguments::{Backends, Drained};
use super::client::Client;
use super::show::{items, typed};
use crate::resources::{Kind, LOCAL};

/// How often a VIP is tried anew when somebody else changes it meanwhile.
const TRIES: usize = 8;

/// Drains the backends in every VIP that has them, or has them take new flows again; or this node.
pub(super) async fn set(client: &Client, what: &Drained, drain: bool) -> Result<String, CtlError> {
    if what.node {
        let name = LOCAL;
        let withdraw = drain && what.withdraw;
        let spec = json!({"drain": drain, "withdraw": withdraw});
        // Its labels stay, and so does what somebody else changes meanwhile.
        let metadata = match client.get(&path_of(Some(Kind::Node), name, false)).await {
            Ok(node) => node["metadata"].clone(),
            Err(CtlError::Refused(problem)) if problem.status == 404 => json!({"name": name}),
            Err(error) => return Err(error),
        };
        let body = json!({"metadata": metadata, "spec": spec});
        client.put(&path_of(Some(Kind::Node), name, what.dry_run), &body).await?;
        let also = if withdraw { ", its VIPs withdrawn" } else { "" };
        return Ok(format!("node {name} {}{also}{}\n", word(drain), dry(what.dry_run)));
    }
    let vips: Vec<Vip> = match &what.vip {
        Some(name) => vec![typed(client.get(&path(name, false)).await?)?],
        None => items(client.get("vips").await?)?,
    };
    let (mut said, mut refused, mut found) = (String::new(), Vec::new(), false);
    for vip in
        vips.into_iter().filter(|vip| vip.spec.backends.iter().any(|b| is_meant(b, what.backend)))
    {
        found = true;
        let name = vip.metadata.name.clone();
        match set_one(client, vip, what, drain).await {
            Ok(0) => said.push_str(&format!("vip {name} unchanged\n")),
            Ok(backends) => {
                let dry = dry(what.dry_run);
                said.push_str(&format!("vip {name}: {backends} backends {}{dry}\n", word(drain)));
            }
            Err(CtlError::Refused(problem)) => {
                refused.push(format!("vip {name} is refused: {}", super::words(&problem)));
            }
            Err(other) => return Err(other),
        }
    }
    if !found {
        return Err(CtlError::Other(
            "no VIP has this backend: `lbctl describe vip` lists a VIP's".into(),
        ));
    }
    finish(said, &refused)
}

/// How many of its backends were changed.
async fn set_one(
    client: &Client,
    mut vip: Vip,
    what: &Drained,
    drain: bool,
) -> Result<usize, CtlError> {
    let mut tries = 1;
    loop {
        let changed = mark(&mut vip, what.backend, drain);
        if changed == 0 {
            return Ok(0);
        }
        let name = vip.metadata.name.clone();
        // With the revision that was read: what somebody else changed meanwhile is not lost.
        let body = serde_json::to_value(Vip { status: None, ..vip });
        let body: Value = body.map_err(|error| CtlError::Other(error.to_string()))?;
        match client.put(&path(&name, what.dry_run), &body).await {
            Ok(_) => return Ok(changed),
            Err(CtlError::Refused(problem)) if problem.status == 412 && tries < TRIES => {
                tries += 1;
                vip = typed(client.get(&path(&name, false)).await?)?;
            }
            Err(other) => return Err(other),
        }
    }
}

fn mark(vip: &mut Vip, which: Option<Backends>, drain: bool) -> usize {
    let those = vip.spec.backends.iter_mut().filter(|b| is_meant(b, which) && b.drain != drain);
    those.map(|backend| backend.drain = drain).count()
}

/// Every one, where none is said.
fn is_meant(backend: &lb_api_types::vip::Backend, which: Option<Backends>) -> bool {
    which.is_none_or(|which| {
        backend.address == which.address && which.port.is_none_or(|port| port == backend.port)
    })
}

fn word(drain: bool) -> &'static str {
    if drain { "drained" } else { "undrained" }
}

#[cfg(test)]
mod tests {
    use lb_api_types::vip::Backend;

    use super::*;
    use crate::registry::tests::vip;

    #[test]
    fn an_address_means_all_of_its_ports_and_what_is_so_already_is_no_change() {
        let mut web = vip("web", 10);
        web.spec.backends = [([10, 0, 0, 1], 80), ([10, 0, 0, 1], 81), ([10, 0, 0, 2], 80)]
            .map(|(address, port)| Backend {
                address: address.into(),
                port,
                weight: 1,
                max_flows: None,
                drain: false,
                disabled: false,
            })
            .into();
        let which = |port| Some(Backends { address: [10, 0, 0, 1].into(), port });
        assert_eq!(mark(&mut web, which(Some(81)), true), 1);
        assert_eq!(mark(&mut web, which(None), true), 1);
        assert_eq!(mark(&mut web, which(None), true), 0);
        let drained: Vec<_> = web.spec.backends.iter().map(|backend| backend.drain).collect();
        assert_eq!(drained, [true, true, false]);
        assert_eq!(mark(&mut web, which(None), false), 2);
    }
}
