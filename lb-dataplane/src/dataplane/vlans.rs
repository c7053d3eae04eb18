//! VLANs' interfaces: which frames are theirs, and what is put around those that leave through them.

use std::collections::{BTreeMap, HashMap, HashSet};

use aya::Ebpf;
use aya::maps::{HashMap as Hash, MapData, MapError};
use lb_dataplane_common::encapsulation::Encapsulation;
use lb_dataplane_common::vlan::{MAX_VLANS, Tag, Tags, VlanKey};

use super::{Dataplane, interfaces};
use crate::error::ApplyError;

/// Bytes of a tag.
const TAG_LEN: u32 = 4;

/// Entries of `VLANS`: an interface for each link and tag.
type Entries<M> = Hash<M, [u8; 8], u32>;

/// The interface of a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its index.
    pub ifindex: u32,
    /// The index of the interface below: a link, or another VLAN's.
    pub link: u32,
    /// 802.1ad's tag, not 802.1Q's.
    pub is_service_tag: bool,
    /// The VLAN's number.
    pub id: u16,
    /// The interface's MAC.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
    /// That of the interface below.
    pub link_mtu: u32,
    /// Whether its packets are handled where its frames come in, instead of by the kernel.
    pub receives: bool,
}

impl Dataplane {
    /// Has these be all VLANs' interfaces that there are: packets that are routed through them leave through the link below
    /// with tags, and frames with the tags of those that [receive](Vlan::receives) are handled where the fast path is attached.
    /// Of those that receive, the first [`MAX_VLANS`].
    ///
    /// # Errors
    ///
    /// A map cannot be written.
    pub fn set_vlans(&mut self, vlans: &[Vlan]) -> Result<(), ApplyError> {
        self.fib.set_encapsulations(encapsulations(vlans), cramped(vlans));
        self.fib.set_ways_out(&self.ways_out.look_at(self.fib.interfaces()));
        let attached: Vec<u32> = self.attached().iter().map(|attached| attached.ifindex).collect();
        receive(&mut self.ebpf, vlans, &attached)
            .map_err(|source| ApplyError::Map { map: "VLANS", source })
    }
}

/// What is put around packets by the interface that they leave through. The kernel's own path puts the tags where there are
/// more than two.
fn encapsulations(vlans: &[Vlan]) -> HashMap<u32, Encapsulation> {
    let by_index: HashMap<u32, &Vlan> = vlans.iter().map(|vlan| (vlan.ifindex, vlan)).collect();
    let around = |vlan: &Vlan| match by_index.get(&vlan.link) {
        None => Some((vlan.link, Tags::one(tag(vlan)))),
        Some(outer) if by_index.contains_key(&outer.link) => None,
        Some(outer) => Some((outer.link, Tags::two(tag(outer), tag(vlan)))),
    };
    let of = |vlan: &Vlan| {
        let (link, tags) = around(vlan)?;
        Some((vlan.ifindex, Encapsulation::Vlan { link, tags }))
    };
    vlans.iter().filter_map(of).collect()
}

/// The VLANs whose packets of full size XDP cannot send by the link below: with their two tags they are longer than it lets
/// through, which is the link's MTU and a header with one tag (`xdp_ok_fwd_dev` of the kernel). Those are the kernel's there.
#[must_use]
pub fn cramped(vlans: &[Vlan]) -> HashSet<u32> {
    let by_index: HashMap<u32, &Vlan> = vlans.iter().map(|vlan| (vlan.ifindex, vlan)).collect();
    let has_no_room = |vlan: &&Vlan| {
        let outer = by_index.get(&vlan.link);
        let outermost = outer.filter(|outer| !by_index.contains_key(&outer.link));
        outermost.is_some_and(|outer| vlan.mtu.saturating_add(TAG_LEN) > outer.link_mtu)
    };
    vlans.iter().filter(has_no_room).map(|vlan| vlan.ifindex).collect()
}

/// Has packets of these VLANs handled where their frames come in, and no others.
fn receive(ebpf: &mut Ebpf, vlans: &[Vlan], attached: &[u32]) -> Result<(), MapError> {
    let handled = vlans.iter().filter(|vlan| vlan.receives).take(MAX_VLANS as usize);
    let wanted: BTreeMap<[u8; 8], &Vlan> =
        handled.map(|vlan| (VlanKey::new(vlan.link, tag(vlan)).to_bytes(), vlan)).collect();
    let before: BTreeMap<[u8; 8], u32> = entries(ebpf)?.iter().collect::<Result<_, _>>()?;
    for (key, ifindex) in &before {
        if wanted.get(key).is_some_and(|vlan| vlan.ifindex == *ifindex) {
            continue;
        }
        entries(ebpf)?.remove(key)?;
        let is_used = |vlan: &&Vlan| vlan.ifindex == *ifindex;
        if !attached.contains(ifindex) && !wanted.values().any(is_used) {
            interfaces::forget(ebpf, *ifindex);
        }
    }
    for (key, vlan) in wanted {
        interfaces::note(ebpf, vlan.ifindex, vlan.mac)?;
        if before.get(&key) != Some(&vlan.ifindex) {
            entries(ebpf)?.insert(key, vlan.ifindex, 0)?;
        }
    }
    Ok(())
}

fn tag(vlan: &Vlan) -> Tag {
    Tag::new(vlan.is_service_tag, vlan.id)
}

fn entries(ebpf: &mut Ebpf) -> Result<Entries<&mut MapData>, MapError> {
    ebpf.map_mut("VLANS").expect("the object holds this map").try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_by_the_link_below_with_two_tags_at_most() {
        let vlan = |ifindex, link, is_service_tag, id| Vlan {
            ifindex,
            link,
            is_service_tag,
            id,
            mac: [2; 6],
            mtu: 1500,
            link_mtu: 1500,
            receives: false,
        };
        let all = [
            vlan(20, 2, false, 5),
            vlan(30, 2, true, 6),
            vlan(31, 30, false, 7),
            vlan(32, 31, false, 8),
        ];
        let around = encapsulations(&all);
        let one = Tags::one(Tag::new(false, 5));
        assert_eq!(around.get(&20), Some(&Encapsulation::Vlan { link: 2, tags: one }));
        let two = Tags::two(Tag::new(true, 6), Tag::new(false, 7));
        assert_eq!(around.get(&31), Some(&Encapsulation::Vlan { link: 2, tags: two }));
        assert_eq!(around.get(&32), None);
    }

    #[test]
    fn two_tags_have_no_room_where_the_link_has_no_longer_frames_than_their_vlan() {
        let vlan = |ifindex, link, mtu, link_mtu| Vlan {
            ifindex,
            link,
            is_service_tag: false,
            id: 5,
            mac: [2; 6],
            mtu,
            link_mtu,
            receives: false,
        };
        let of = |inner, link| cramped(&[vlan(30, 2, 1500, link), vlan(31, 30, inner, 1500)]);
        assert_eq!(of(1500, 1500), HashSet::from([31]));
        assert_eq!(of(1500, 1503), HashSet::from([31]));
        assert_eq!(of(1500, 1504), HashSet::new());
        assert_eq!(of(1496, 1500), HashSet::new());
        assert_eq!(of(u32::MAX, 1500), HashSet::from([31]));
        assert_eq!(cramped(&[vlan(30, 2, 1500, 1500)]), HashSet::new(), "one fits");
    }
}
