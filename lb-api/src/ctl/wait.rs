//! `--wait`: until what was changed is carried out.

use std::time::{Duration, Instant};

use lb_api_types::vip::Vip;

use super::client::{Client, segment};
use super::show::typed;
use super::{Answer, CtlError};

/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until every one of these is; the answer is no when it takes longer than `within`.
pub(super) async fn until_carried(
    client: &Client,
    names: &[String],
    within: Duration,
) -> Result<Answer, CtlError> {
    let until = Instant::now() + within;
    let mut said = String::new();
    for name in names {
        loop {
            let vip: Vip = typed(client.get(&format!("vips/{}", segment(name))).await?)?;
            let Some(lacks) = lacks(&vip) else {
                said.push_str(&format!("vip {name} is {}\n", how_it_is(&vip)));
                break;
            };
            if Instant::now() >= until {
                let seconds = within.as_secs();
                said.push_str(&format!("vip {name} is not ready after {seconds} s: {lacks}\n"));
                return Ok(Answer::No(said));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(Answer::Yes(said))
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
