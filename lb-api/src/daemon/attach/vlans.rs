//! The interfaces of VLANs: their frames come in by the interface below with a tag, and are handled there if the fast path is to
//! be on both. Where it is to be on that of the VLAN only, or where there are more than two tags, it is attached to that.

use lb_dataplane::Vlan;
use lb_routing::Link;

use super::super::dataplane::{DataplaneHandle, sentence};
use super::{is_wanted, vrf};

/// Tags of a frame at most.
const TAGS: usize = 2;

/// Every VLAN, and whether its packets are handled where its frames come in.
pub(super) fn of(links: &[Link], patterns: &[String]) -> Vec<Vlan> {
    let of = |link: &Link| {
        let lb_routing::Vlan { link: below, is_service_tag, id } = link.vlan?;
        let receives = link.up && is_handled_below(links, link, patterns);
        Some(Vlan {
            ifindex: link.ifindex,
            link: below,
            is_service_tag,
            id,
            mac: link.mac,
            receives,
        })
    };
    links.iter().filter(|link| link.ethernet).filter_map(of).collect()
}

/// Has the dataplane know them.
pub(super) async fn tell(dataplane: &DataplaneHandle, all: Vec<Vlan>) -> Result<(), String> {
    let told = dataplane.with(move |owned| owned.dataplane.set_vlans(&all)).await?;
    told.map_err(|error| sentence(&error))
}

/// Whether a link's frames come in by another one, with tags, and are to be handled there.
pub(super) fn is_handled_below(links: &[Link], link: &Link, patterns: &[String]) -> bool {
    handled_by(links, link, patterns).is_some()
}

/// The interface that a link's frames come in by, with tags, and are to be handled on: the link is no port of anything, and
/// everything below is to be attached to, too.
pub(super) fn handled_by(links: &[Link], link: &Link, patterns: &[String]) -> Option<u32> {
    let mut above = link;
    for _ in 0..TAGS {
        let is_port = above.controller.is_some();
        let vlan = above.vlan.filter(|_| !is_port && is_wanted(patterns, &above.name))?;
        let below = links.iter().find(|link| link.ifindex == vlan.link)?;
        if below.vlan.is_none() {
            let is_wanted = below.ethernet && is_wanted(patterns, &below.name);
            return (is_wanted && vrf(links, below).is_none()).then_some(below.ifindex);
        }
        above = below;
    }
    None
}

#[cfg(test)]
mod tests {
    use lb_dataplane::{Attached, Hook};
    use lb_routing::Controller;

    use super::super::{Done, Step, plan};
    use super::*;

    fn link(ifindex: u32, name: &str, below: u32) -> Link {
        let vlan = lb_routing::Vlan { link: below, is_service_tag: false, id: ifindex as u16 };
        Link {
            ifindex,
            name: name.into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            ethernet: true,
            controller: None,
            vlan: (below != 0).then_some(vlan),
        }
    }

    /// The interfaces that are attached to, and those whose frames are handled below.
    fn done(links: &[Link], patterns: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.into()).collect();
        let steps = plan(links, &[], &mut Done::new(), &patterns);
        let attached = steps.iter().map(|step| match step {
            Step::Attach(link) => link.ifindex,
            other @ Step::Detach(..) => panic!("{other:?}"),
        });
        let all = of(links, &patterns);
        let receive = all.iter().filter(|vlan| vlan.receives).map(|vlan| vlan.ifindex);
        (attached.collect(), receive.collect())
    }

    fn links() -> Vec<Link> {
        vec![
            link(2, "eth0", 0),
            link(20, "eth0.20", 2),
            link(30, "eth0.30", 2),
            link(31, "eth0.30.31", 30),
            link(32, "eth0.30.31.32", 31),
        ]
    }

    #[test]
    fn vlans_of_an_interface_that_is_attached_to_are_handled_there_and_others_on_their_own() {
        assert_eq!(done(&links(), &["eth0*"]), (vec![2, 32], vec![20, 30, 31]));
        assert_eq!(done(&links(), &["eth0"]), (vec![2], vec![]));
        assert_eq!(done(&links(), &["eth0.20"]), (vec![20], vec![]));
        assert_eq!(done(&links(), &["eth0", "eth0.20"]), (vec![2], vec![20]));
        // Its frames are tagged for that one first, which is not to be handled.
        assert_eq!(done(&links(), &["eth0", "eth0.30.31"]), (vec![2, 31], vec![]));
    }

    #[test]
    fn a_vlan_that_is_down_or_a_port_or_of_another_namespace_is_not_handled_below() {
        let change = |change: &dyn Fn(&mut Link)| {
            let mut links = links();
            links.truncate(2);
            change(&mut links[1]);
            done(&links, &["eth0*"])
        };
        assert_eq!(change(&|_| ()), (vec![2], vec![20]));
        assert_eq!(change(&|vlan| vlan.up = false), (vec![2], vec![]));
        let bridge = Controller { ifindex: 9, is_vrf: false };
        assert_eq!(change(&|vlan| vlan.controller = Some(bridge)), (vec![2, 20], vec![]));
        let vrf = Controller { ifindex: 9, is_vrf: true };
        assert_eq!(change(&|vlan| vlan.controller = Some(vrf)), (vec![2], vec![]));
        assert_eq!(change(&|vlan| vlan.vlan = None), (vec![2, 20], vec![]));
    }

    #[test]
    fn what_was_attached_to_a_vlan_goes_once_the_interface_below_is_attached_to() {
        let on = |name: &str, ifindex| Attached { name: name.into(), ifindex, hook: Hook::Tc };
        let next = |attached: &[Attached], done: &mut Done| {
            plan(&links()[..2], attached, done, &["eth0*".into()])
        };
        let steps = next(&[on("eth0.20", 20)], &mut Done::new());
        let [Step::Attach(link)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(link.ifindex, 2);
        let mut done = Done::from([(2, (link.name.clone(), link.mac))]);
        let steps = next(&[on("eth0.20", 20), on("eth0", 2)], &mut done);
        let [Step::Detach(name, _)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(name, "eth0.20");
    }
}
