use lb_api_types::vip::{Algorithm, HealthCheck, HealthCheckKind, Metadata, Protocol};
use proptest::prelude::*;

use super::*;

fn vip(name: &str, address: [u8; 4], port: u16, backends: &[u8]) -> Vip {
    Vip {
        metadata: Metadata { name: name.into(), ..Metadata::default() },
        spec: VipSpec {
            pool: None,
            address: address.into(),
            port,
            last_port: None,
            protocol: Protocol::Tcp,
            algorithm: Algorithm::Maglev,
            affinity_secs: None,
            maglev_table_size: None,
            max_flows: None,
            max_flows_per_client: None,
            idle_timeout_secs: None,
            reset_on_expiry: false,
            on_unhealthy: None,
            mss_clamp: None,
            access: Default::default(),
            full_table: Default::default(),
            nat: Default::default(),
            backends: backends
                .iter()
                .map(|&last| Backend {
                    address: [10, 0, 0, last].into(),
                    port: 8080,
                    weight: 1,
                    max_flows: None,
                    drain: false,
                    disabled: false,
                })
                .collect(),
            health_check: HealthCheck::default(),
            advertise: true,
            announce_on: Vec::new(),
        },
        status: None,
    }
}

const ADDRESS: [u8; 4] = [203, 0, 113, 10];

/// A world in which everything is served and nothing is known of health.
struct World {
    vips: Vips,
    verdicts: Verdicts,
    attached: bool,
    withdrawn: bool,
    serving: BTreeSet<ServiceKey>,
    unreached: Unreached,
    damping: Damping,
    now: Instant,
}

impl World {
    fn of(vips: impl IntoIterator<Item = Vip>) -> Self {
        let vips: Vips = vips.into_iter().map(|vip| (vip.metadata.name.clone(), vip)).collect();
        let serving = vips.values().map(|vip| key(&vip.spec)).collect();
        let verdicts = Verdicts::new();
        Self {
            vips,
            verdicts,
            attached: true,
            withdrawn: false,
            serving,
            unreached: Unreached::new(),
            damping: Damping::default(),
            now: Instant::now(),
        }
    }

    fn find(&mut self, last: u8, health: Health) {
        let backend = IpAddr::from([10, 0, 0, last]);
        let targets = targets(&self.vips).into_iter().filter(|t| t.backend.ip() == backend);
        let verdict = Verdict { health, message: String::new() };
        self.verdicts.extend(targets.map(|target| (target, verdict.clone())));
        let addresses: BTreeSet<_> = self.vips.values().map(|vip| vip.spec.address).collect();
        let health = addresses.into_iter().map(|address| {
            let here = self.vips.values().filter(|vip| vip.spec.address == address);
            (address, address_health(here, &self.verdicts))
        });
        self.damping.observe(health, self.now);
    }

    fn message(&self, name: &str) -> String {
        let announced = self.desired().announced;
        Reasons::new(self.facts(), &announced, self.vips.values()).message(&self.vips[name])
    }

    fn facts(&self) -> Facts<'_> {
        let Self { vips, verdicts, attached, withdrawn, serving, unreached, damping, now } = self;
        Facts {
            vips,
            verdicts,
            attached: *attached,
            withdrawn: *withdrawn,
            serving,
            unreached,
            damping,
            now: *now,
        }
    }

    fn desired(&self) -> Desired {
        desired(self.facts())
    }

    fn takes_new_flows(&self) -> Vec<bool> {
        let table = self.desired().table;
        let services = table.services.values().flat_map(|service| &service.backends);
        services.map(|backend| backend.takes_new_flows()).collect()
    }

    fn announced(&self) -> bool {
        self.desired().announced.contains(&ADDRESS.into())
    }
}

#[test]
fn vips_are_judged_when_each_has_a_healthy_backend_and_an_interface_or_none_at_all() {
    let mut world =
        World::of([vip("a", ADDRESS, 80, &[1, 2]), vip("b", [203, 0, 113, 11], 80, &[3])]);
    world.attached = false;
    assert!(!are_judged(world.facts()));
    world.find(1, Health::Healthy);
    world.find(3, Health::Unhealthy);
    assert!(!are_judged(world.facts()), "packets of the first one come in nowhere yet");
    world.attached = true;
    assert!(are_judged(world.facts()), "whatever its other backend is");
    world.find(1, Health::Unhealthy);
    assert!(!are_judged(world.facts()), "it is the other one's turn");
    world.find(2, Health::Unhealthy);
    world.attached = false;
    assert!(are_judged(world.facts()), "nothing is there to be announced");
    let mut silent = vip("c", [203, 0, 113, 12], 80, &[4]);
    silent.spec.advertise = false;
    assert!(are_judged(World::of([silent]).facts()));
    assert!(are_judged(World::of([]).facts()));
}

#[test]
fn a_drained_backend_takes_no_new_flows_and_its_address_stays_for_those_that_it_has() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2])]);
    let drain = |world: &mut World, place: usize| {
        world.vips.get_mut("web").unwrap().spec.backends[place].drain = true;
    };
    let states = |world: &World| {
        let table = world.desired().table;
        let services = table.services.values().flat_map(|service| &service.backends);
        services.map(|backend| backend.state).collect::<Vec<_>>()
    };
    drain(&mut world, 0);
    assert_eq!(
        states(&world),
        [BackendState::Draining, BackendState::Active],
        "nothing is known yet"
    );
    world.find(1, Health::Healthy);
    assert_eq!(
        states(&world),
        [BackendState::Draining, BackendState::Active],
        "the other may serve"
    );
    world.find(2, Health::Healthy);
    assert_eq!(states(&world), [BackendState::Draining, BackendState::Active]);
    assert_eq!(world.message("web"), "advertised: 2 of 2 backends healthy, 1 of them drained");
    drain(&mut world, 1);
    assert_eq!(states(&world), [BackendState::Draining; 2]);
    assert!(world.announced() && world.message("web").contains("new flows are refused"));
    world.find(1, Health::Unhealthy);
    assert_eq!(
        states(&world),
        [BackendState::Failed, BackendState::Draining],
        "datagrams' flows end"
    );
}

#[test]
fn a_vip_is_advertised_once_it_is_served_and_a_backend_is_healthy() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2])]);
    world.serving.clear();
    world.find(1, Health::Healthy);
    assert!(!world.announced());
    assert!(world.message("web").contains("does not serve it yet"));
    world.serving = world.desired().table.services.keys().copied().collect();
    assert!(world.announced());
    assert_eq!(world.message("web"), "advertised: 1 of 2 backends healthy");
}

#[test]
fn a_backend_that_no_packet_reaches_is_no_reason_to_advertise() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2])]);
    world.find(1, Health::Healthy);
    world.find(2, Health::Healthy);
    let key = key(&world.vips["web"].spec);
    world.unreached.insert((key, [10, 0, 0, 1].into()));
    assert!(world.announced(), "the other one is reached");
    world.unreached.insert((key, [10, 0, 0, 2].into()));
    assert!(!world.announced());
    assert!(world.message("web").contains("no packet reaches"), "{}", world.message("web"));
}

#[test]
fn a_withdrawn_node_serves_and_advertises_nothing_and_says_so() {
    let mut world = World::of([vip("a", ADDRESS, 80, &[1])]);
    world.find(1, Health::Healthy);
    assert_eq!(world.desired().announced.len(), 1);
    world.withdrawn = true;
    assert!(world.desired().announced.is_empty() && !world.desired().table.services.is_empty());
    assert!(world.message("a").contains("the node is drained"), "{}", world.message("a"));
}

#[test]
fn a_disabled_backend_is_neither_served_nor_checked() {
    let mut all = vip("a", ADDRESS, 80, &[1, 2]);
    all.spec.backends[0].disabled = true;
    let served = service(&all.spec, &Verdicts::default());
    assert_eq!(served.backends.len(), 1);
    assert_eq!(served.backends[0].address, all.spec.backends[1].address);
    let targets = targets_of(&all.spec).collect::<Vec<_>>();
    assert!(targets.iter().all(|target| target.backend.ip() == all.spec.backends[1].address));
}

#[test]
fn the_size_of_a_table_goes_by_all_backends_of_the_list_or_by_what_is_said() {
    let mut all = vip("web", ADDRESS, 80, &(1..=11).collect::<Vec<_>>());
    let size = |vip: &Vip| service(&vip.spec, &Verdicts::new()).table_size.map(NonZero::get);
    assert_eq!(size(&all), Some(4093));
    all.spec.backends[0].disabled = true;
    all.spec.backends[1].drain = true;
    assert_eq!(size(&all), Some(4093));
    all.spec.maglev_table_size = Some(65_521);
    assert_eq!(size(&all), Some(65_521));
}

#[test]
fn nothing_is_advertised_while_the_fast_path_is_not_attached_to_every_interface() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1])]);
    world.find(1, Health::Healthy);
    world.attached = false;
    assert!(!world.announced());
    assert!(world.message("web").contains("not attached to every interface"));
}

#[test]
fn a_vip_is_not_advertised_before_health_has_spoken() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2])]);
    assert!(!world.announced());
    world.find(1, Health::Unhealthy);
    assert!(!world.announced());
    assert!(world.message("web").contains("1 of 2"));
}

#[test]
fn a_vip_is_withdrawn_when_the_last_backend_fails_and_comes_back_with_the_first() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2])]);
    world.find(1, Health::Healthy);
    world.find(2, Health::Healthy);
    world.find(1, Health::Unhealthy);
    assert!(world.announced());
    world.find(2, Health::Unhealthy);
    assert!(!world.announced());
    assert!(world.message("web").contains("all of its 2 backends are unhealthy"));
    assert_eq!(world.desired().table.services.len(), 1, "established flows still need it");
    world.find(1, Health::Healthy);
    assert!(world.announced());
}

#[test]
fn a_flapping_vip_is_held_back_and_says_so() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1])]);
    for _ in 0..3 {
        world.find(1, Health::Healthy);
        world.find(1, Health::Unhealthy);
    }
    world.find(1, Health::Healthy);
    assert!(!world.announced());
    assert!(world.message("web").contains("flapped"));
    world.now += HALF_LIFE * 4;
    assert!(world.announced());
}

#[test]
fn backends_that_nobody_has_judged_take_new_flows_only_while_none_is_healthy() {
    let mut world = World::of([vip("web", ADDRESS, 80, &[1, 2, 3])]);
    assert_eq!(world.takes_new_flows(), [true, true, true]);
    world.find(1, Health::Unhealthy);
    assert_eq!(world.takes_new_flows(), [false, true, true]);
    world.find(2, Health::Healthy);
    assert_eq!(world.takes_new_flows(), [false, true, false]);
    world.find(2, Health::Unhealthy);
    world.find(3, Health::Unhealthy);
    assert_eq!(world.takes_new_flows(), [false, false, false]);
}

#[test]
fn vips_of_one_address_keep_it_advertised_while_one_of_them_is_healthy() {
    let mut world = World::of([vip("a", ADDRESS, 80, &[1]), vip("b", ADDRESS, 443, &[2])]);
    world.find(1, Health::Healthy);
    world.find(2, Health::Unhealthy);
    assert!(world.announced());
    let message = world.message("b");
    assert!(message.contains("because of VIP a"), "{message}");
    world.find(1, Health::Unhealthy);
    assert!(!world.announced());
    assert_eq!(world.desired().addresses.len(), 1);
}

#[test]
fn a_vip_that_is_not_to_be_advertised_is_served_all_the_same() {
    let mut quiet = vip("web", ADDRESS, 80, &[1]);
    quiet.spec.advertise = false;
    let mut world = World::of([quiet]);
    world.find(1, Health::Healthy);
    assert!(!world.announced());
    assert_eq!(world.desired().table.services.len(), 1);
}

#[test]
fn without_a_check_every_backend_counts_as_healthy() {
    let mut unchecked = vip("dns", ADDRESS, 53, &[1]);
    unchecked.spec.health_check.kind = HealthCheckKind::None;
    let world = World::of([unchecked]);
    assert!(targets(&world.vips).is_empty());
    assert!(world.announced());
}

#[test]
fn vips_with_the_same_check_share_it() {
    let mut slow = vip("c", ADDRESS, 82, &[1]);
    slow.spec.health_check.interval_ms = 9000;
    let world = World::of([vip("a", ADDRESS, 80, &[1]), vip("b", ADDRESS, 81, &[1]), slow]);
    assert_eq!(targets(&world.vips).len(), 2);
}

proptest! {
    /// Whatever holds: only what is served and healthy is advertised, each VIP is in the table, and new flows go to
    /// healthy backends wherever there is one.
    #[test]
    fn the_invariants_hold(
        specs in prop::collection::btree_map((0..3_u8, 1..4_u16), (prop::collection::btree_set(1..6_u8, 1..4), any::<bool>()), 0..6),
        findings in prop::collection::vec((1..6_u8, 0..3_u8), 0..12),
        served in any::<u8>(),
    ) {
        let vips = specs.iter().enumerate().map(|(n, ((last, port), (backends, advertise)))| {
            let backends: Vec<_> = backends.iter().copied().collect();
            let mut vip = vip(&format!("v{n}"), [203, 0, 113, *last], *port, &backends);
            vip.spec.advertise = *advertise;
            vip
        });
        let mut world = World::of(vips);
        world.serving = world.serving.iter().enumerate().filter(|(n, _)| served & (1 << n) != 0).map(|(_, k)| *k).collect();
        for (last, health) in findings {
            world.find(last, [Health::Unknown, Health::Healthy, Health::Unhealthy][usize::from(health)]);
        }
        let desired = world.desired();
        prop_assert!(desired.announced.is_subset(&desired.addresses));
        for address in &desired.announced {
            let reason = world.vips.values().any(|vip| {
                vip.spec.address == *address && vip.spec.advertise
                    && world.serving.contains(&key(&vip.spec))
                    && tally(&vip.spec, &world.verdicts).healthy > 0
            });
            prop_assert!(reason, "{} is advertised without a reason", address);
        }
        for vip in world.vips.values() {
            let service = &desired.table.services[&key(&vip.spec)];
            let takers = service.backends.iter().filter(|b| b.takes_new_flows()).count();
            let tally = tally(&vip.spec, &world.verdicts);
            let expected = if tally.healthy > 0 { tally.healthy } else { tally.unknown };
            prop_assert_eq!(service.backends.len(), vip.spec.backends.len());
            prop_assert_eq!(takers, expected);
        }
    }
}
