use super::*;

fn eth0(hook: Hook) -> Interface {
    let offloads = Some(Offloads::default());
    Interface { name: "eth0".into(), hook, up: true, rp_filter: Some(0), offloads }
}

/// A host on which all is well.
fn well() -> Facts {
    Facts {
        kernel: "6.12.3-amd64".into(),
        btf: true,
        capabilities: Some(u64::MAX),
        uid: Some(64_179),
        ip_forward: Some(true),
        grace_period: Some(Ok(())),
        compiled: Some(true),
        interfaces: vec![eth0(Hook::Xdp)],
        interfaces_wanted: true,
        sessions: vec![Session {
            name: "upstream".into(),
            state: "Established".into(),
            last_error: "an old one".into(),
        }],
        vips: 1,
        unrouted: Some(vec![]),
        maps: Some((0, vec![])),
        ..Facts::default()
    }
}

/// What is not well: name, subject, state and remedy.
fn found(edit: impl FnOnce(&mut Facts)) -> Vec<(String, Option<String>, CheckState, String)> {
    let mut facts = well();
    edit(&mut facts);
    let doctor = examine(&facts);
    let bad = doctor.checks.into_iter().filter(|check| check.state != CheckState::Ok);
    let bad: Vec<_> = bad.map(|c| (c.name, c.subject, c.state, c.remedy)).collect();
    assert_eq!(doctor.healthy, bad.iter().all(|(_, _, state, _)| *state == CheckState::Unknown));
    bad
}

/// The only thing that is not well.
#[track_caller]
fn only(edit: impl FnOnce(&mut Facts), name: &str, state: CheckState, remedy: &str) {
    let bad = found(edit);
    let [(found, _, how, what)] = &bad[..] else { panic!("{bad:?}") };
    assert_eq!((found.as_str(), *how), (name, state));
    assert!(what.contains(remedy), "{what}");
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn a_fib_without_room_is_found() {
    only(|facts| facts.left_out = 7, "drift", CheckState::Error, "dataplane.max_fib_blocks");
}

#[test]
fn a_daemon_that_stays_root_is_found() {
    only(|facts| facts.uid = Some(0), "user", CheckState::Warning, "useradd --system lbd");
    only(|facts| facts.uid = None, "user", CheckState::Unknown, "");
}

#[test]
fn old_kernels_and_those_without_types_are_found() {
    use CheckState::{Error, Unknown};
    for old in ["6.5.0", "5.15.0-generic", "4.19"] {
        only(|f| f.kernel = old.into(), "kernel", Error, "6.6 or later");
    }
    for new in ["6.6.1", "6.10.0-rc1", "7.0"] {
        assert_eq!(found(|f| f.kernel = new.into()), [], "{new}");
    }
    only(|f| f.btf = false, "kernel", Error, "CONFIG_DEBUG_INFO_BTF");
    only(|f| f.kernel = "weird".into(), "kernel", Unknown, "");
}

#[test]
fn each_missing_capability_is_named() {
    let without = |number: u32| move |f: &mut Facts| f.capabilities = Some(!(1 << number));
    only(without(12), "capabilities", CheckState::Error, "CAP_NET_ADMIN");
    only(without(10), "capabilities", CheckState::Error, "CAP_NET_BIND_SERVICE");
    assert_eq!(found(without(39)), [], "CAP_SYS_ADMIN stands in");
    let admin_alone = (1 << 10) | (1 << 12) | (1 << 13);
    assert_eq!(found(|f| f.capabilities = Some(admin_alone)).len(), 2, "CAP_BPF and CAP_PERFMON");
}

#[test]
fn settings_of_the_kernel_are_found_with_their_remedy() {
    use CheckState::{Error, Warning};
    only(|f| f.ip_forward = Some(false), "ip-forward", Warning, "net.ipv4.ip_forward=1");
    only(|f| f.compiled = Some(false), "bpf-jit", Error, "bpf_jit_enable=1");
    only(|f| f.grace_period = Some(Err("EPERM".into())), "membarrier", Error, "seccomp");
}

#[test]
fn a_reverse_path_filter_is_found_strict_or_loose() {
    for value in [1, 2] {
        let edit = |f: &mut Facts| f.interfaces[0].rp_filter = Some(value);
        only(edit, "rp-filter", CheckState::Warning, "net.ipv4.conf.eth0.rp_filter=0");
    }
    let vlan = |f: &mut Facts| {
        f.interfaces[0].name = "eth0.7".into();
        f.interfaces[0].rp_filter = Some(1);
    };
    only(vlan, "rp-filter", CheckState::Warning, "conf.eth0/7.rp_filter");
}

#[test]
fn whatever_keeps_vlan_tags_from_a_program_matters_under_xdp_only() {
    use CheckState::{Unknown, Warning};
    let far = |keeps_tags| Some(FarEnd::Here { name: "far0".into(), keeps_tags });
    let none = Offloads::default;
    for (offloads, state, remedy) in [
        (Offloads { rx_vlan: true, ..none() }, Warning, "ethtool -K eth0 rxvlan off"),
        (Offloads { rx_vlan_stag: true, ..none() }, Warning, "eth0 rx-vlan-stag-hw-parse off"),
        (Offloads { far_end: far(true), ..none() }, Warning, "ethtool -K far0 txvlan off"),
        (Offloads { far_end: Some(FarEnd::Elsewhere), ..none() }, Unknown, "txvlan off"),
    ] {
        let at = |hook| vec![Interface { offloads: Some(offloads.clone()), ..eth0(hook) }];
        only(|f| f.interfaces = at(Hook::Xdp), "vlan-tags", state, remedy);
        assert_eq!(found(|f| f.interfaces = at(Hook::Tc)), []);
    }
    let well = Offloads { far_end: far(false), ..none() };
    assert_eq!(found(|f| f.interfaces[0].offloads = Some(well)), []);
    only(|f| f.interfaces[0].offloads = None, "offloads", Unknown, "");
    let lro = Offloads { lro: true, ..none() };
    only(|f| f.interfaces[0].offloads = Some(lro), "lro", Warning, "lro off");
}

#[test]
fn an_interface_that_is_attached_and_down_is_found() {
    let down = |f: &mut Facts| f.interfaces[0].up = false;
    only(down, "attachment", CheckState::Warning, "ip link set eth0 up");
}

#[test]
fn a_fast_path_that_is_nowhere_is_an_error() {
    use CheckState::Error;
    only(|f| f.interfaces.clear(), "attachment", Error, "is there and up");
    let unnamed = |f: &mut Facts| (f.interfaces, f.interfaces_wanted) = (vec![], false);
    only(unnamed, "attachment", Error, "name interfaces");
    only(|f| f.troubles = vec!["eth1 carries another".into()], "attachment", Error, "");
    only(|f| f.lacking = vec!["eth1".into()], "attachment", Error, "dataplane.interfaces");
}

#[test]
fn sessions_vips_and_state_that_are_not_well_are_found() {
    use CheckState::Warning;
    only(|f| f.sessions[0].state = "Active".into(), "bgp-session", Warning, "AS");
    only(|f| f.unadvertised = vec![("web".into(), "unhealthy".into())], "vips", Warning, "");
    only(|f| f.state = vec!["vips.json was damaged".into()], "state", Warning, "");
    only(|f| f.alarms = vec!["peer n1: its key has gone".into()], "alarm", Warning, "");
}

#[test]
fn what_cannot_be_read_is_unknown_and_no_finding() {
    let bad = found(|f| {
        (f.capabilities, f.ip_forward, f.grace_period, f.compiled) = (None, None, None, None);
        f.interfaces[0].rp_filter = None;
        f.interfaces[0].offloads = None;
    });
    assert_eq!(bad.len(), 6);
    assert!(bad.iter().all(|(_, _, state, _)| *state == CheckState::Unknown), "{bad:?}");
}

#[test]
fn what_the_world_lacks_of_what_was_asked_for_is_drift() {
    let unserved = |f: &mut Facts| f.unserved = vec!["web".into()];
    only(unserved, "drift", CheckState::Error, "daemon's log");
    let unrouted = |f: &mut Facts| f.unrouted = Some(vec![[203, 0, 113, 10].into()]);
    only(unrouted, "drift", CheckState::Error, "puts it back");
    only(|f| f.unrouted = None, "drift", CheckState::Unknown, "");
    let own = |f: &mut Facts| f.own = vec![([203, 0, 113, 10].into(), "eth0".into())];
    only(own, "drift", CheckState::Error, "ip address del 203.0.113.10 dev eth0");
}

#[test]
fn what_others_wrote_into_the_maps_is_drift_with_its_remedy() {
    let told = vec!["the ring of the service tcp 203.0.113.10:80 is not as written".to_owned()];
    for (count, more) in [(1, ""), (3, ", and 2 more")] {
        let facts = Facts { maps: Some((count, told.clone())), ..well() };
        let checks = examine(&facts).checks;
        let drift = checks.iter().find(|check| check.name == "drift").unwrap();
        let expected = format!("the fast path's maps are not as lbd wrote them: {}{more}", told[0]);
        assert_eq!((drift.state, &drift.message), (CheckState::Error, &expected));
        assert!(drift.remedy.contains("`lbctl doctor services --repair`"), "{}", drift.remedy);
    }
    only(|facts| facts.maps = None, "drift", CheckState::Unknown, "");
}
