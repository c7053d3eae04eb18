//! The interfaces of VLANs: their frames come in by the interface below with a tag, and are handled there if the fast path is to
//! be on both. Where it is to be on that of the VLAN only, or where there are more than two tags, it is attached to that.

use std::collections::HashMap;

use lb_dataplane::{MAX_VLANS, Vlan, cramped};
use lb_routing::Link;

use super::super::dataplane::{DataplaneHandle, sentence};
use super::{is_attachable, is_wanted};

/// Tags of a frame at most.
const TAGS: usize = 2;

/// Every VLAN, and whether its packets are handled where its frames come in.
pub(super) fn of(links: &[Link], patterns: &[String]) -> Vec<Vlan> {
    let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.ifindex, link)).collect();
    let of = |link: &Link| {
        let lb_routing::Vlan { link: below, is_service_tag, id } = link.vlan?;
        Some(Vlan {
            ifindex: link.ifindex,
            link: below,
            is_service_tag,
            id,
            mac: link.mac,
            mtu: link.mtu,
            link_mtu: by_index.get(&below)?.mtu,
            receives: link.up && is_handled_below(links, link, patterns),
        })
    };
    links.iter().filter(|link| link.ethernet).filter_map(of).collect()
}

/// What is to be said of VLANs that the fast path does not carry, or not all of. `at_xdp`: it sends from there, too.
pub(super) fn troubles(links: &[Link], all: &[Vlan], at_xdp: bool) -> Vec<String> {
    let name = |ifindex: u32| {
        let link = links.iter().find(|link| link.ifindex == ifindex);
        link.map_or(format!("#{ifindex}"), |link| link.name.clone())
    };
    let beyond: Vec<_> = all.iter().filter(|vlan| vlan.receives).skip(MAX_VLANS as usize).collect();
    let beyond = beyond.first().map(|first| {
        let (first, others) = (name(first.ifindex), beyond.len() - 1);
        format!(
            "the fast path knows {MAX_VLANS} VLANs and there are more: frames of {first} and of {others} others are the kernel's (vlan-tagged); name fewer of them in dataplane.interfaces"
        )
    });
    let cramped = cramped(all).into_iter().filter(|_| at_xdp).filter_map(|ifindex| {
        let vlan = all.iter().find(|vlan| vlan.ifindex == ifindex)?;
        let outer = all.iter().find(|outer| outer.ifindex == vlan.link)?;
        let (inner, link) = (name(ifindex), name(outer.link));
        let (most, least) = (outer.link_mtu.saturating_sub(4), vlan.mtu.saturating_add(4));
        Some(format!(
            "interface {inner}: with two tags its longest packets are longer than XDP sends by {link}, so the kernel sends them all (way-out-without-xdp); `ip link set {link} mtu {least}`, or `ip link set {inner} mtu {most}`"
        ))
    });
    let mut all: Vec<String> = beyond.into_iter().chain(cramped).collect();
    all.sort_unstable();
    all
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
pub(in crate::daemon) fn handled_by(
    links: &[Link],
    link: &Link,
    patterns: &[String],
) -> Option<u32> {
    let mut above = link;
    for _ in 0..TAGS {
        let is_port = above.controller.is_some();
        let vlan = above.vlan.filter(|_| !is_port && is_wanted(patterns, &above.name))?;
        let below = links.iter().find(|link| link.ifindex == vlan.link)?;
        if below.vlan.is_none() {
            return is_attachable(links, below, patterns).then_some(below.ifindex);
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
    fn a_vlan_of_a_port_is_attached_to_by_itself_where_the_port_is_not() {
        let mut links = links();
        links.truncate(2);
        links[0].controller = Some(Controller { ifindex: 9, is_vrf: false });
        links.push(link(9, "br0", 0));
        assert_eq!(done(&links, &["eth0*"]), (vec![2], vec![20]));
        assert_eq!(done(&links, &["eth0*", "br0"]), (vec![20, 9], vec![]));
    }

    #[test]
    fn vlans_beyond_what_the_programs_know_and_those_too_long_for_xdp_are_told() {
        let patterns = ["eth*".to_owned()];
        let mut links = vec![link(2, "eth0", 0), link(3, "eth1", 0)];
        let (first, more) = (10_000, 10_000 + MAX_VLANS);
        links.extend((first..more).map(|n| link(n, &format!("eth0.{n}"), 2)));
        assert_eq!(troubles(&links, &of(&links, &patterns), true), [""; 0]);
        links.extend((more..more + 3).map(|n| link(n, &format!("eth1.{n}"), 3)));
        let told = troubles(&links, &of(&links, &patterns), true);
        let [one] = &told[..] else { panic!("{told:?}") };
        assert!(one.contains("of eth1.14096 and of 2 others are the kernel's"), "{one}");
        assert_eq!(troubles(&links, &of(&links, &["wan".into()]), true), [""; 0]);

        let mut links = self::links();
        let told = |links: &[Link], at_xdp| troubles(links, &of(links, &["*".into()]), at_xdp);
        let two = told(&links, true);
        let [one] = &two[..] else { panic!("{two:?}") };
        assert!(one.contains("`ip link set eth0 mtu 1504`, or `ip link set eth0.30.31 mtu 1496`"));
        assert_eq!(told(&links, false), [""; 0], "TC sends them");
        links[0].mtu = 1504;
        assert_eq!(told(&links, true), [""; 0]);
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
