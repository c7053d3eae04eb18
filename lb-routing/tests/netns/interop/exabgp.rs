//! ExaBGP, which tells a process of ours what it learns, and takes commands from it.

use super::{Kind, MORE, Wish};

pub(super) struct ExaBgp;

impl Kind for ExaBgp {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let (us, them, theirs) = (wish.us(), wish.them(), wish.theirs());
        let asn = wish.asn();
        let family = if wish.v6 { "ipv6" } else { "ipv4" };
        let md5 = format!("md5-password \"{}\"; ", wish.key.unwrap_or_default());
        let md5 = Wish::when(wish.key.is_some(), &md5);
        let gtsm = Wish::when(wish.gtsm, "outgoing-ttl 255; incoming-ttl 255; ");
        let add_path = Wish::when(wish.add_path, "add-path send/receive; ");
        let graceful = Wish::when(wish.graceful, "graceful-restart 60; ");
        // It wants to speak the next hops' family, too.
        let more_families = Wish::when(wish.by_ipv6, " ipv6 unicast;");
        let hops = Wish::when(wish.by_ipv6, "nexthop { ipv4 unicast ipv6; }\n");
        let (med, more) =
            (Wish::when(wish.more, " med 50"), if wish.more { &MORE[..] } else { &[] });
        // Of itself it would take the route's family.
        let hop = if wish.by_ipv6 { them } else { "self" };
        let route = |prefix: &&str| {
            format!(
                "route {prefix} next-hop {hop}{med} community [ 64513:100 ] large-community [ 64513:1:2 ]; "
            )
        };
        let routes: String = [&[theirs][..], more].concat().iter().map(route).collect();
        let text = format!(
            "process watch {{ run /bin/sh $D/watch; encoder json; }}\n\
             neighbor {us} {{\n\
             router-id 10.0.0.2; local-address {them}; local-as {asn}; peer-as 64512;\n\
             {md5}{gtsm}\n\
             family {{ {family} unicast;{more_families} }}\n\
             {hops}\
             capability {{ route-refresh enable; extended-message enable; {graceful}{add_path}}}\n\
             api {{ processes [ watch ]; receive {{ parsed; update; }} }}\n\
             static {{ {routes}}}\n\
             }}\n"
        );
        // What is written to the pipe are commands; held open, it gives many.
        let watch = "cat < $D/commands &\nexec 3> $D/commands\nexec cat > $D/heard\n".to_owned();
        vec![("exabgp.conf", text), ("watch", watch)]
    }

    fn command(&self, _wish: Wish) -> String {
        "mkfifo $D/commands 2>/dev/null; exec env exabgp.daemon.user=root exabgp.daemon.drop=false \
         exabgp.api.cli=false exabgp.log.destination=stderr exabgp.log.level=INFO \
         /usr/sbin/exabgp $D/exabgp.conf"
            .to_owned()
    }

    /// Everything that it told its process of this prefix, its lists as everybody else writes them.
    fn show(&self, _wish: Wish, prefix: &str) -> String {
        let path = r#"s/"as-path": \[ ([0-9]+), ([0-9]+), ([0-9]+) \]/\1 \2 \3/"#;
        let short = r#"s/"as-path": \[ ([0-9]+), ([0-9]+) \]/\1 \2/"#;
        let large = r"s/\[ ([0-9]+), ?([0-9]+) ?, ?([0-9]+) \]/\1:\2:\3/g";
        let standard = r"s/\[ ([0-9]+), ?([0-9]+) \]/\1:\2/g";
        format!(
            "grep -F '{prefix}' $D/heard | sed -E -e '{path}' -e '{short}' -e '{large}' -e '{standard}'"
        )
    }

    fn remembers(&self) -> bool {
        true
    }

    /// It is no router: it keeps nothing.
    fn helps(&self) -> bool {
        false
    }

    /// It hangs up where it is to mark what it tells again (RFC 7313): it cannot encode the marks.
    fn tells_again(&self) -> bool {
        false
    }

    fn refresh(&self, wish: Wish) -> Option<String> {
        let (us, family) = (wish.us(), if wish.v6 { "ipv6" } else { "ipv4" });
        Some(format!("echo 'neighbor {us} announce route-refresh {family} unicast' > $D/commands"))
    }
}
