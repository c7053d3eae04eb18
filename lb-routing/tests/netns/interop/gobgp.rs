//! GoBGP.

use super::{Kind, MORE, Wish};

pub(super) struct GoBgp;

fn family(wish: Wish) -> &'static str {
    if wish.v6 { "ipv6" } else { "ipv4" }
}

impl Kind for GoBgp {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let (us, them, asn) = (wish.us(), wish.them(), wish.asn());
        let family = family(wish);
        let md5 = format!("auth-password = \"{}\"\n", wish.key.unwrap_or_default());
        let md5 = Wish::when(wish.key.is_some(), &md5);
        let gtsm = "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
        let gtsm = Wish::when(wish.gtsm, gtsm);
        let add_path = "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
        let add_path = Wish::when(wish.add_path, add_path);
        let graceful = "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n";
        let graceful = Wish::when(wish.graceful, graceful);
        let family_graceful = "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";
        let family_graceful = Wish::when(wish.graceful, family_graceful);
        // Its routes come by command: without them its End-of-RIB would say that they are gone.
        let waits = Wish::when(wish.graceful, "admin-down = true\n");
        let text = format!(
            "[global.config]\nas = {asn}\nrouter-id = \"10.0.0.2\"\n\
             [[neighbors]]\n\
             [neighbors.config]\nneighbor-address = \"{us}\"\npeer-as = 64512\n{md5}{waits}\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\nhold-time = 240\n\
             [neighbors.transport.config]\nlocal-address = \"{them}\"\n\
             {gtsm}{graceful}\
             [[neighbors.afi-safis]]\n\
             [neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n{family_graceful}{add_path}"
        );
        vec![("gobgp.toml", text)]
    }

    fn command(&self, wish: Wish) -> String {
        let recover = Wish::when(wish.graceful, " --graceful-restart");
        format!("exec gobgpd -f $D/gobgp.toml --api-hosts 127.0.0.1:50051 --pprof-disable{recover}")
    }

    fn announce(&self, wish: Wish) -> Option<String> {
        let (family, theirs) = (family(wish), wish.theirs());
        // Without a word it would be INCOMPLETE.
        let attributes = "origin igp community 64513:100 large-community 64513:1:2";
        let med = Wish::when(wish.more, " med 50");
        let more = if wish.more { &MORE[..] } else { &[] };
        let prefixes = [&[theirs][..], more].concat();
        let announce = prefixes
            .iter()
            .map(|prefix| format!("gobgp global rib add -a {family} {prefix} {attributes}{med}"));
        let announce = announce.collect::<Vec<_>>().join(" && ");
        let enable = format!(" && gobgp neighbor {} enable", wish.us());
        Some(announce + Wish::when(wish.graceful, &enable))
    }

    fn show(&self, wish: Wish, prefix: &str) -> String {
        format!("gobgp global rib -a {} {prefix}", family(wish))
    }

    /// It never sends one.
    fn refresh(&self, _wish: Wish) -> Option<String> {
        None
    }
}
