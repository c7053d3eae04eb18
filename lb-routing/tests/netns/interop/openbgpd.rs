//! OpenBGPD, the portable version.

use super::{Kind, MORE, Wish};

pub(super) struct OpenBgpd;

/// Where `cargo xtask setup` puts it: the package's `bgpd` would stand in the way of FRR's.
const FOLDER: &str = "/usr/local/lib/lbd-test/openbgpd/usr/sbin";

impl Kind for OpenBgpd {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let (us, them, theirs) = (wish.us(), wish.them(), wish.theirs());
        let asn = wish.asn();
        let family = if wish.v6 { "IPv6" } else { "IPv4" };
        let md5 = format!("tcp md5sig password {}\n", wish.key.unwrap_or_default());
        let md5 = Wish::when(wish.key.is_some(), &md5);
        let gtsm = Wish::when(wish.gtsm, "ttl-security yes\n");
        let add_path = "announce add-path recv yes\nannounce add-path send all\n";
        let add_path = Wish::when(wish.add_path, add_path);
        let (med, more) =
            (Wish::when(wish.more, "med 50 "), if wish.more { &MORE[..] } else { &[] });
        let network = |prefix: &&str| {
            format!(
                "network {prefix} set {{ {med}community 64513:100 large-community 64513:1:2 }}\n"
            )
        };
        let networks: String = [&[theirs][..], more].concat().iter().map(network).collect();
        let text = format!(
            "AS {asn}\nrouter-id 10.0.0.2\nfib-update no\nholdtime 240\n\
             socket \"$D/ctl\"\nlisten on {them}\n\
             {networks}\
             neighbor {us} {{\nremote-as 64512\nlocal-address {them}\nannounce {family} unicast\n{add_path}{md5}{gtsm}}}\n\
             allow from any\nallow to any\n"
        );
        vec![("bgpd.conf", text)]
    }

    /// It refuses a configuration that others can read, and wants a user with an empty folder, which
    /// only it sees.
    fn command(&self, _wish: Wish) -> String {
        let user = "_openbgpd:x:65534:65534::$D/empty:/usr/sbin/nologin";
        format!(
            "chmod 600 $D/bgpd.conf; chmod 755 $D; mkdir -p $D/empty; \
             (grep -v ^_openbgpd: /etc/passwd; echo {user}) > $D/passwd; \
             exec unshare --mount sh -c \
             'mount --bind $D/passwd /etc/passwd && exec {FOLDER}/bgpd -d -f $D/bgpd.conf'"
        )
    }

    fn show(&self, _wish: Wish, prefix: &str) -> String {
        format!("{FOLDER}/bgpctl -s $D/ctl show rib detail {prefix}")
    }

    /// Left alone it would rest for 30 s, and longer each time.
    fn take_key(&self, wish: Wish) -> Option<String> {
        let (control, us) = (format!("{FOLDER}/bgpctl -s $D/ctl"), wish.us());
        Some(format!("{control} reload && {control} neighbor {us} clear"))
    }

    /// It keeps nothing over a restart of its own, and says so.
    fn restarts(&self) -> bool {
        false
    }

    fn wake(&self, wish: Wish) -> Option<String> {
        Some(format!("{FOLDER}/bgpctl -s $D/ctl neighbor {} clear", wish.us()))
    }

    /// 7.7 takes every family that was agreed on for one that was not.
    fn tells_again(&self) -> bool {
        false
    }

    fn refresh(&self, wish: Wish) -> Option<String> {
        Some(format!("{FOLDER}/bgpctl -s $D/ctl neighbor {} refresh", wish.us()))
    }
}
