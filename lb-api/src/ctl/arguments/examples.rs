//! What `--help` of each command shows to try. A test reads every line as the command line would.

pub(super) const ALL: &str = "\
Examples:
  lbctl get vips                       # every VIP: served, advertised, healthy backends
  lbctl describe vip web               # one VIP with its backends and counters
  lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080 --wait
  lbctl diff -f web.yaml               # what apply would change
  lbctl apply -f web.yaml              # create or replace what the file says
  lbctl edit vip web                   # in your editor
  lbctl delete vip web
  lbctl drain 10.0.0.1                 # no new flows to this server, in any VIP
  lbctl drain --node                   # neighbours are told that this node is about to go
  lbctl show bgp summary               # BGP sessions
  lbctl bgp explain 10.244.0.0/26      # its paths, and what keeps the best one from whom
  lbctl fib lookup 10.244.1.7          # where the fast path sends a packet
  lbctl events --watch                 # what happens, as it happens
  lbctl doctor                         # what stands in the way, and what to do about it
  lbctl --server https://lbd.example:8443 --token-file ci.token get status

`lbctl COMMAND --help` has examples of each.";

pub(super) const GET: &str = "\
Examples:
  lbctl get vips -o wide               # with counters, and why it is or is not advertised
  lbctl get vips -l app=web            # by label
  lbctl get vips --watch               # and then each that changes
  lbctl get vip/web -o yaml            # as a file says it, and what holds
  lbctl get backends web               # of one VIP
  lbctl get flows --filter service=web --filter state=half-open
  lbctl get fib 10.244.1.0/26          # where the fast path sends packets
  lbctl get routes --limit 100000";

pub(super) const DESCRIBE: &str = "\
Examples:
  lbctl describe vip web               # with each backend's health and last error
  lbctl describe backend web/10.0.0.1:8080
  lbctl describe peer upstream
  lbctl describe status";

pub(super) const CREATE: &str = "\
Examples:
  lbctl create pool public --addresses 203.0.113.64/26
  lbctl create vip api --pool public --port 443 --backend 10.0.0.3:8443
  lbctl create backend web/10.0.0.3:8080 --weight 2
  lbctl create peer node3 --address 10.0.3.2 --asn 64512 --import all --wait
  lbctl create set pods --prefix '10.244.0.0/16 ge 24 le 32'
  lbctl create policy from-nodes --statement '{match: {prefix_set: pods}, action: accept}'
  lbctl create static-route far --prefix 198.51.100.0/24 --next-hop 192.0.2.1
  lbctl create token ci --role operator --expires-in 90 > ci.token";

pub(super) const CREATE_VIP: &str = "\
Examples:
  lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080 --wait
  lbctl create vip api --pool public --port 443 --backend 10.0.0.3:8443 --label app=shop
  lbctl create vip game --address 203.0.113.8 --port 27000-27099 --protocol udp --health-check none --backend 10.0.0.1:27000

What it has no option for is said in a file (`lbctl apply`) or afterwards (`lbctl edit vip NAME`).";

pub(super) const APPLY: &str = "\
Examples:
  lbctl apply -f web.yaml --wait       # until it is served and advertised
  lbctl apply -f shop.yaml --owner shop --prune
  lbctl apply -f web.yaml --confirm 60 # rolled back unless you say `lbctl config confirm` within 60 s";

pub(super) const CONFIG: &str = "\
Examples:
  lbctl config history                 # what there is to go back to
  lbctl config rollback --dry-run      # to the one before
  lbctl config rollback --to 6";

pub(super) const DELETE: &str = "\
Examples:
  lbctl delete vip web
  lbctl delete backend web/10.0.0.1:8080
  lbctl delete -f shop.yaml --dry-run  # all that the file names";

pub(super) const DRAIN: &str = "\
Examples:
  lbctl drain 10.0.0.1                 # this server, in any VIP
  lbctl drain 10.0.0.1:8080 --vip web
  lbctl drain --vip web                # all of its backends
  lbctl drain --node                   # then, once traffic has moved:
  lbctl drain --node --withdraw";

pub(super) const SHOW: &str = "\
Examples:
  lbctl show bgp summary
  lbctl show bgp neighbors upstream
  lbctl show bgp neighbors upstream received-routes   # as they came; also advertised-routes, routes
  lbctl show bgp routes --community 65001:* --as-path _65002$
  lbctl show bgp 10.244.0.7            # the longest prefix for it; the same as: lbctl bgp explain";

pub(super) const CLEAR: &str = "\
Examples:
  lbctl clear bgp upstream             # the session ends, and comes back
  lbctl clear bgp upstream --soft in   # have import policy see its routes again";

pub(super) const BGP: &str = "\
Examples:
  lbctl bgp explain 10.244.3.7                 # which paths there are, and why the best one is the best
  lbctl bgp drain upstream                     # it takes other ways first; then, once traffic has moved:
  lbctl bgp shutdown upstream --message 'new optics at noon'
  lbctl bgp start upstream; lbctl bgp undrain upstream";

pub(super) const EVENTS: &str = "\
Examples:
  lbctl events --watch
  lbctl events --kind vip-advertised,vip-withdrawn
  lbctl events --flows --watch";

pub(super) const EXPORT: &str = "\
Examples:
  lbctl export > backup.yaml           # lbctl apply -f backup.yaml --prune restores it
  lbctl export --all > lbd.yaml
  lbctl export --hidden > move.yaml    # also what the file hides, for a host without this file";

pub(super) const DOCTOR: &str = "\
Examples:
  lbctl doctor
  lbctl doctor fib                     # whether the fast path holds every route as it should
  lbctl doctor services --repair       # whether it holds every VIP and backend so, and write again what differs";

pub(super) const FIB: &str = "\
Examples:
  lbctl fib lookup 10.244.1.7 --source 198.51.100.2 --source-port 40000 --port 80";

pub(super) const COMPLETIONS: &str = "\
Examples:
  lbctl completions bash > /etc/bash_completion.d/lbctl
  lbctl completions zsh > /usr/local/share/zsh/site-functions/_lbctl
  lbctl completions fish > /etc/fish/completions/lbctl.fish";
