//! BIRD 2, and BIRD 1.6, which is one daemon per family.

use super::{Kind, MORE, Wish};

pub(super) struct Two;

pub(super) struct One;

/// Where `cargo xtask setup` puts BIRD 1.6: its package excludes that of BIRD 2.
const ONE: &str = "/usr/local/lib/lbd-test/bird1/usr/sbin";

/// `(64513,100)` and `(64513, 1, 2)` as everybody else writes them.
const AS_OTHERS: &str = r"sed -E -e 's/\(([0-9]+),([0-9]+)\)/\1:\2/g' -e 's/\(([0-9]+), ([0-9]+), ([0-9]+)\)/\1:\2:\3/g'";

/// What it does to its routes.
fn own(wish: Wish) -> String {
    let med = Wish::when(wish.more, "bgp_med = 50; ");
    format!(
        "{{ {med}bgp_community.add((64513,100)); bgp_large_community.add((64513,1,2)); accept; }}"
    )
}

/// Its routes.
fn fixed(wish: Wish) -> String {
    let more = if wish.more { &MORE[..] } else { &[] };
    let all = [wish.theirs()].into_iter().chain(more.iter().copied());
    all.map(|route| format!("route {route} blackhole; ")).collect()
}

/// What both versions read alike.
fn session(wish: Wish, extended: &str, channel: &str) -> String {
    let (us, them, asn) = (wish.us(), wish.them(), wish.asn());
    let md5 = format!("password \"{}\"; ", wish.key.unwrap_or_default());
    let md5 = Wish::when(wish.key.is_some(), &md5);
    let gtsm = Wish::when(wish.gtsm, "ttl security on; ");
    let graceful = Wish::when(wish.graceful, "graceful restart on; ");
    format!(
        "router id 10.0.0.2;\n\
         protocol device {{}}\n\
         protocol bgp lbd {{\n\
         local {them} as {asn}; neighbor {us} as 64512; check link no;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         {md5}{gtsm}{graceful}{extended}\n{channel}\n}}\n"
    )
}

impl Kind for Two {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let family = if wish.v6 { "ipv6" } else { "ipv4" };
        let add_path = Wish::when(wish.add_path, "add paths on; ");
        let by_ipv6 = Wish::when(wish.by_ipv6, "extended next hop on; ");
        let own = own(wish);
        let channel =
            format!("{family} {{ {add_path}import all; export filter {own}; {by_ipv6}}};");
        let fixed = format!("protocol static {{ {family}; {}}}\n", fixed(wish));
        vec![("bird.conf", session(wish, "enable extended messages on; ", &channel) + &fixed)]
    }

    fn command(&self, wish: Wish) -> String {
        let recover = Wish::when(wish.graceful, " -R");
        format!("exec /usr/sbin/bird -f{recover} -c $D/bird.conf -s $D/ctl -P $D/pid")
    }

    fn show(&self, _wish: Wish, prefix: &str) -> String {
        format!("/usr/sbin/birdc -s $D/ctl show route {prefix} all protocol lbd | {AS_OTHERS}")
    }

    fn take_key(&self, _wish: Wish) -> Option<String> {
        Some("/usr/sbin/birdc -s $D/ctl configure".to_owned())
    }

    fn collides(&self) -> bool {
        true
    }

    fn refresh(&self, _wish: Wish) -> Option<String> {
        Some("/usr/sbin/birdc -s $D/ctl reload in lbd".to_owned())
    }
}

impl Kind for One {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let add_path = Wish::when(wish.add_path, "add paths on; ");
        let channel = format!("{add_path}import all; export filter {};", own(wish));
        let fixed = format!("protocol static {{ {}}}\n", fixed(wish));
        vec![("bird.conf", session(wish, "enable extended messages on; ", &channel) + &fixed)]
    }

    fn command(&self, wish: Wish) -> String {
        let name = if wish.v6 { "bird6" } else { "bird" };
        let recover = Wish::when(wish.graceful, " -R");
        format!("exec {ONE}/{name} -f{recover} -c $D/bird.conf -s $D/ctl -P $D/pid")
    }

    fn show(&self, wish: Wish, prefix: &str) -> String {
        let name = if wish.v6 { "birdc6" } else { "birdc" };
        format!("{ONE}/{name} -s $D/ctl show route {prefix} all protocol lbd | {AS_OTHERS}")
    }

    fn take_key(&self, wish: Wish) -> Option<String> {
        let name = if wish.v6 { "birdc6" } else { "birdc" };
        Some(format!("{ONE}/{name} -s $D/ctl configure"))
    }

    fn collides(&self) -> bool {
        true
    }

    fn refresh(&self, wish: Wish) -> Option<String> {
        let name = if wish.v6 { "birdc6" } else { "birdc" };
        Some(format!("{ONE}/{name} -s $D/ctl reload in lbd"))
    }
}
