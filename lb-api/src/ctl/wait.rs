//! `--wait`: until what was changed is carried out.

use std::time::{Duration, Instant};

use lb_api_types::peer::Peer;
use lb_api_types::resource::ConditionStatus;
use lb_api_types::route::{Address, RouteStatus, StaticRoute};
use lb_api_types::view::Change;
use lb_api_types::vip::Vip;

use super::apply::path_of;
use super::client::Client;
use super::show::typed;
use super::{Answer, CtlError};
use crate::resources::Kind;

/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until every VIP, neighbour, static route and address of these is; the answer is no when it takes longer than `within`. What other kinds say
/// is carried out when lbd answers.
pub(super) async fn until_carried(
    client: &Client,
    all: &[Change],
    within: Duration,
) -> Result<Answer, CtlError> {
    let until = Instant::now() + within;
    let mut said = String::new();
    for Change { kind, name, .. } in all {
        loop {
            let told = match kind.as_str() {
                "vip" => of_vip(&typed(client.get(&path_of(None, name, false)).await?)?),
                "peer" => {
                    let path = path_of(Some(Kind::Peer), name, false);
                    of_peer(&typed(client.get(&path).await?)?)
                }
                "static-route" => {
                    let path = path_of(Some(Kind::StaticRoute), name, false);
                    let route: StaticRoute = typed(client.get(&path).await?)?;
                    of_routing(route.status.as_ref(), "Installed", "installed")
                }
                "address" => {
                    let path = path_of(Some(Kind::Address), name, false);
                    let address: Address = typed(client.get(&path).await?)?;
                    of_routing(address.status.as_ref(), "Present", "present")
                }
                _ => break,
            };
            match told {
                Ok(how) => {
                    said.push_str(&format!("{kind} {name} is {how}\n"));
                    break;
                }
                Err(lacks) if Instant::now() >= until => {
                    let seconds = within.as_secs();
                    said.push_str(&format!(
                        "{kind} {name} is not ready after {seconds} s: {lacks}\n"
                    ));
                    return Ok(Answer::No(said));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
    Ok(Answer::Yes(said))
}

fn of_vip(vip: &Vip) -> Result<&'static str, String> {
    match lacks(vip) {
        None => Ok(how_it_is(vip)),
        Some(lacks) => Err(lacks),
    }
}

fn of_peer(peer: &Peer) -> Result<&'static str, String> {
    if peer.spec.options.shutdown == Some(true) {
        return Ok("shut down");
    }
    match &peer.status {
        Some(status) if status.state == "Established" => Ok("Established"),
        Some(status) if status.last_error.is_empty() => Err(format!("it is {}", status.state)),
        Some(status) => Err(format!("it is {} ({})", status.state, status.last_error)),
        None => Err("lbd says nothing of it".into()),
    }
}

/// Whether a condition of a route or an address holds.
fn of_routing(
    status: Option<&RouteStatus>,
    what: &str,
    how: &'static str,
) -> Result<&'static str, String> {
    let all = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    match all.iter().find(|condition| condition.kind == what) {
        Some(condition) if condition.status == ConditionStatus::True => Ok(how),
        Some(condition) => Err(condition.message.clone()),
        None => Err("lbd says nothing of it".into()),
    }
}

/// What is still to come; `None` when nothing is.
fn lacks(vip: &Vip) -> Option<String> {
    let Some(status) = &vip.status else { return Some("lbd says nothing of it".into()) };
    match (status.serving, vip.spec.advertise, status.advertised) {
        (true, false, _) | (true, true, true) => None,
        (false, ..) | (true, true, false) => Some(status.message.clone()),
    }
}

fn how_it_is(vip: &Vip) -> &'static str {
    if vip.spec.advertise { "served and advertised" } else { "served" }
}

#[cfg(test)]
mod tests {
    use lb_api_types::vip::VipStatus;

    use super::*;
    use crate::registry::tests::vip;

    #[test]
    fn a_vip_is_ready_when_it_is_served_and_advertised_as_it_asks() {
        let with = |serving, advertise, advertised| {
            let mut vip = vip("web", 10);
            vip.spec.advertise = advertise;
            vip.status = Some(VipStatus {
                conditions: vec![],
                serving,
                advertised,
                message: "why not".into(),
                backends: vec![],
                packets: 0,
                bytes: 0,
                reply_packets: 0,
                reply_bytes: 0,
                flows: 0,
                evicted_flows: 0,
                exhausted_flows: 0,
            });
            lacks(&vip)
        };
        assert_eq!(with(true, true, true), None);
        assert_eq!(with(true, false, false), None);
        assert_eq!(with(true, true, false), Some("why not".into()));
        assert_eq!(with(false, false, false), Some("why not".into()));
    }
}
