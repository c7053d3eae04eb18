//! Which backends that answer clients themselves can be reached: what the kernel would have to send, it would drop or lead
//! astray.

use std::net::IpAddr;

use crate::fib::Action;
use crate::table::{BackendState, Mode, Service};

/// What packets to an address meet, if the routes are known.
pub(super) type Towards<'a> = &'a dyn Fn(IpAddr) -> Option<Action>;

/// Lets backends that packets cannot reach take no new flows, so that others get them.
pub(super) fn drain(service: &mut Service, towards: Towards<'_>) {
    let mode = service.mode;
    for backend in &mut service.backends {
        let reaches =
            towards(backend.address).is_none_or(|way| reaches(mode, backend.address, &way));
        if !reaches && backend.state == BackendState::Active {
            backend.state = BackendState::Draining;
        }
    }
}

/// Whether packets to a backend get there. In a frame to its MAC they do on a link of this host only. The kernel drops IPv4
/// packets that come from its own address (martians), so a tunnel has to leave by a route that is not left to the kernel.
fn reaches(mode: Mode, backend: IpAddr, way: &Action) -> bool {
    match (mode, way) {
        (Mode::Nat, _) => true,
        (_, Action::Blackhole | Action::NoRoom) => false,
        (Mode::L2, Action::Forward(members)) => members.iter().all(|m| m.gateway.is_none()),
        (Mode::L2, Action::Kernel) => false,
        (Mode::IpInIp | Mode::Gue, Action::Forward(_)) => true,
        (Mode::IpInIp | Mode::Gue, Action::Kernel) => backend.is_ipv6(),
    }
}

/// The neighbours of a service's backends whose MAC is not known: at the driver's hook no packet asks for it.
pub(super) fn unresolved(
    service: &Service,
    towards: Towards<'_>,
) -> impl Iterator<Item = (u32, IpAddr)> + use<> {
    let backends = service.backends.iter().filter(|_| service.mode != Mode::Nat);
    let mut unresolved = Vec::new();
    for backend in backends {
        let Some(Action::Forward(members)) = towards(backend.address) else { continue };
        let straight =
            members.iter().filter(|m| m.gateway.is_none() && m.destination_mac.is_none());
        unresolved.extend(straight.map(|member| (member.ifindex, backend.address)));
    }
    unresolved.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::Member;

    #[test]
    fn a_backend_is_reached_as_its_service_wants_it_or_gets_no_new_flows() {
        let member = |gateway| Member {
            ifindex: 1,
            source_mac: [2; 6],
            destination_mac: None,
            gateway,
            mtu: 1500,
            weight: 1,
        };
        let near = Action::Forward(vec![member(None)]);
        let far = Action::Forward(vec![member(Some([10, 0, 0, 1].into()))]);
        let (v4, v6) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]));
        for (mode, expected) in [
            (Mode::Nat, [true; 5]),
            (Mode::L2, [true, false, false, false, false]),
            (Mode::IpInIp, [true, true, false, true, false]),
            (Mode::Gue, [true, true, false, true, false]),
        ] {
            let (kernel, black) = (&Action::Kernel, &Action::Blackhole);
            let seen = [(v4, &near), (v4, &far), (v4, kernel), (v6, kernel), (v4, black)];
            assert_eq!(seen.map(|(to, way)| reaches(mode, to, way)), expected, "{mode:?}");
        }
    }
}
