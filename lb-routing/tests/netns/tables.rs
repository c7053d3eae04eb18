//! The kernel's tables read as a whole, beside what the router made of the same kernel.

use std::collections::BTreeSet;

use lb_routing::{Action, KernelRouteKind, Source};

use crate::lab::{Router, alone, in_namespace, ip, veth};

#[test]
fn what_is_read_of_the_kernels_tables_is_what_the_router_forwards_by_both_ways() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        veth("lbr1", "10.1.0.1/24");
        for command in [
            "-6 addr add 2001:db8::1/64 dev lbr0 nodad",
            "-6 addr add 2001:db8::2/64 dev lbr1 nodad",
            "nexthop add id 1 via 10.0.0.2 dev lbr0",
            "nexthop add id 2 via 10.1.0.2 dev lbr1",
            "nexthop add id 10 group 1/2,3",
            "route add 172.16.0.0/16 nhid 10",
            "route add 172.17.0.0/16 via 10.0.0.2 metric 20",
            "route add blackhole 172.17.0.0/16 metric 10",
            "route add unreachable 172.18.0.0/16",
            "route add 172.19.0.0/16 via 10.0.0.2 mtu 1300",
            "route add 172.20.0.0/16 tos 0x10 via 10.0.0.2",
            "route add 172.21.0.0/16 via 10.0.0.2",
            "route append 172.21.0.0/16 via 10.1.0.2",
            "-6 route add 2001:db8:1::/48 from 2001:db8:7::/48 via 2001:db8::9 dev lbr0",
            "-6 route add 2001:db8:2::/48 via 2001:db8::9 dev lbr0",
            // A local network hides what is in it.
            "route add local 192.0.2.0/24 dev lo",
            "route add 192.0.2.128/25 via 10.0.0.2",
        ] {
            ip(command);
        }
        let mut router = Router::start(alone()).await;
        router.synced().await;
        // What is read anew is there once this is over.
        router.handle.read_kernel().await;
        router.take();
        let kernel = lb_routing::kernel_routes().await.unwrap();
        assert!(kernel.len() > 16, "{kernel:?}");
        for (prefix, kind) in &kernel {
            let (_, action) = router.route(&prefix.to_string()).unwrap();
            match (kind, &action) {
                (KernelRouteKind::Kernel | KernelRouteKind::Reject, Action::Kernel)
                | (KernelRouteKind::Blackhole, Action::Blackhole) => {}
                (KernelRouteKind::Unicast(hops), Action::Forward(members)) => {
                    let theirs: BTreeSet<_> = hops.iter().map(|h| (h.ifindex, h.gateway)).collect();
                    let ours: BTreeSet<_> =
                        members.iter().map(|m| (m.ifindex, m.gateway)).collect();
                    assert_eq!(ours, theirs, "{prefix}");
                }
                other => panic!("{prefix}: {other:?}"),
            }
        }
        let told = router.handle.told().await.unwrap();
        assert_eq!(told.strays, []);
        for told in told.routes {
            let there = kernel.contains_key(&told.prefix);
            assert_eq!(there, told.in_kernel, "{told:?}");
            assert_eq!(told.in_kernel, told.source != Source::Neighbour, "{told:?}");
        }
        // A dataplane that lost all is told all again.
        let before = router.route("172.16.0.0/16").unwrap();
        router.forget();
        let handle = router.handle.clone();
        let telling = tokio::spawn(async move { handle.tell_again().await });
        router.route_is("172.16.0.0/16", |route| route == Some(&before)).await;
        telling.await.unwrap();
        for prefix in kernel.keys() {
            assert!(router.route(&prefix.to_string()).is_some(), "{prefix}");
        }
    });
}
