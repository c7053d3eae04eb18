pub(crate) mod live;

use std::path::Path as File;

use clap::{Parser, ValueEnum};

use super::arguments::Home;
use super::*;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

/// Lines that are understood.
const GOOD: &[&str] = &[
    "lbctl get vips",
    "lbctl get vip web -o yaml",
    "lbctl get flows --limit 5",
    "lbctl get flows --filter client=10.1.0.0/16 --filter state=half-open",
    "lbctl events --flows --watch",
    "lbctl describe vip web",
    "lbctl apply -f a.yaml -f -",
    "lbctl delete vip web",
    "lbctl delete -f a.yaml",
    "lbctl doctor -o json",
    "lbctl get vips -o wide",
    "lbctl get vips -o name",
    "lbctl describe peer upstream",
    "lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080 --wait --timeout 5",
    "lbctl apply -f a.yaml --dry-run --prune",
    "lbctl apply -f a.yaml --wait",
    "lbctl diff -f a.yaml",
    "lbctl delete vip web --dry-run",
    "lbctl export",
    "lbctl export --all",
    "lbctl export --hidden",
    "lbctl version",
    "lbctl get vip/web",
    "lbctl get config -o yaml",
    "lbctl get version",
    "lbctl get events --watch",
    "lbctl describe config",
    "lbctl delete vip/web",
    "lbctl edit backend/web/10.0.0.1:8080",
    "lbctl drain 10.0.0.1",
    "lbctl undrain 10.0.0.1:80 --vip web",
    "lbctl show bgp summary",
    "lbctl show bgp neighbors",
    "lbctl show bgp neighbours upstream",
    "lbctl show bgp routes 10.0.0.0/8",
    "lbctl show bgp routes --selected --community 65001:* --as-path _7$ --within 10.0.0.0/8 -o json",
    "lbctl show bgp neighbors upstream received-routes --within 10.0.0.0/8 -o yaml",
    "lbctl show bgp 10.0.0.0/8 -o json",
    "lbctl show bgp 10.0.0.1",
    "lbctl bgp explain 10.0.0.1 -o json",
    "lbctl bgp shutdown upstream --message soon",
    "lbctl bgp start 192.0.2.1",
    "lbctl bgp drain upstream",
    "lbctl bgp undrain upstream",
    "lbctl completions zsh",
    "lbctl events --watch",
    "lbctl get vips --watch",
    "lbctl apply -f a.yaml --confirm 60",
    "lbctl config confirm",
    "lbctl config rollback --to 7 --dry-run",
    "lbctl create token ci --role viewer --expires-in 90",
    "lbctl get tokens",
    "lbctl create pool public --addresses 203.0.113.0/28 --addresses 203.0.113.64-203.0.113.70",
    "lbctl create health-check fast --interval 500 --rise 1",
    "lbctl create vip web --pool public --label app=web --port 80 --backend 10.0.0.1:8080",
    "lbctl get vips -l app=web,tier!=test",
    "lbctl get pool public -o yaml",
    "lbctl get interfaces",
    "lbctl describe health-check fast",
    "lbctl delete pool public",
    "lbctl apply -f a.yaml --owner shop --prune",
    "lbctl edit vip web",
    "lbctl drain --vip web",
    "lbctl drain --node",
    "lbctl undrain --node",
    "lbctl bundle",
    "lbctl man /tmp",
    "lbctl --server https://lbd.example --cert-file c --key-file k get vips",
    "lbctl delete token ci",
    "lbctl get backends web",
    "lbctl get bgp-global -o yaml",
    "lbctl get nodes --watch",
    "lbctl get vips --watch -l app=web",
    "lbctl get flows --watch --filter service=web",
    "lbctl show bgp",
    "lbctl describe route 10.0.0.0/8@192.0.2.1",
    "lbctl describe status",
    "lbctl edit bgp-global --dry-run",
    "lbctl edit peer upstream",
    "lbctl delete backend web/10.0.0.1:8080 --dry-run",
    "lbctl create address a --interface eth1 --address 192.0.2.2/24",
    "lbctl create static-route r --prefix 0.0.0.0/0 --next-hop 192.0.2.1%eth1 --metric 7",
    "lbctl create backend web/10.0.0.1:8080 --weight 2",
    "lbctl create set pods --prefix 10.0.0.0/8",
    "lbctl create policy p --statement {action:accept}",
    "lbctl create peer-group nodes --asn 65001 --import all",
    "lbctl create peer node1 --address 192.0.2.1 --group nodes --wait",
    "lbctl create bgp-global --asn 65001 --cluster-id 192.0.2.1",
    "lbctl create node local --drain --withdraw",
    "lbctl drain 10.0.0.1 --dry-run",
    "lbctl --server https://lbd.example --token-file t --ca-file c get vips",
    "lbctl --server http://127.0.0.1:8080 get status",
];

#[test]
fn commands_are_understood() {
    for line in GOOD {
        let parsed = Arguments::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
    }
    let bad = [
        "lbctl",
        "lbctl get",
        "lbctl get pods",
        "lbctl apply",
        "lbctl delete",
        "lbctl delete vip web -f a.yaml",
        "lbctl --server ftp://x get vips",
        "lbctl get vips -o xml",
        "lbctl create vip web --address 203.0.113.7 --port 80",
        "lbctl create vip web --address x --port 80 --backend 10.0.0.1:80",
        "lbctl apply -f a.yaml --dry-run --wait",
        "lbctl diff",
        "lbctl drain web",
        "lbctl drain",
        "lbctl drain 10.0.0.1 --node",
        "lbctl get vips -l a>b",
        "lbctl --cert-file c get vips",
        "lbctl create vip web --port 80 --backend 10.0.0.1:80",
        "lbctl create bgp-global",
        "lbctl create bgp-global --dry-run",
        "lbctl get flows --filter service",
        "lbctl create set pods",
        "lbctl create node --withdraw",
        "lbctl completions cmd",
    ];
    for line in bad {
        assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn servers_are_read() {
    let read = |text: &str| text.parse::<Server>().map(|server| server.to_string());
    assert_eq!(read("unix:/run/x.sock"), Ok("unix:/run/x.sock".into()));
    assert_eq!(read("http://127.0.0.1:8080/"), Ok("http://127.0.0.1:8080".into()));
    assert_eq!(read("http://localhost"), Ok("http://localhost:80".into()));
    assert_eq!(read("https://lbd.example"), Ok("https://lbd.example:443".into()));
    for bad in ["", "unix:", "http://", "https://", "ftp://x", "/run/x.sock", "http://a/b"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_problem_is_one_sentence_that_names_the_field() {
    let problem = |detail: &str, pointer: Option<&str>| Problem {
        kind: String::new(),
        title: String::new(),
        status: 422,
        detail: detail.into(),
        pointer: pointer.map(str::to_owned),
        request_id: None,
        errors: vec![],
    };
    assert_eq!(words(&problem("spec.port is 0", Some("/spec/port"))), "spec.port is 0");
    assert_eq!(words(&problem("it is taken", Some("/spec/port"))), "it is taken (spec.port)");
    assert_eq!(words(&problem("no", None)), "no");
    assert_eq!(words(&problem("no", Some(""))), "no");
}

#[test]
fn a_full_disk_is_a_mistake_and_a_reader_that_has_gone_is_none() {
    let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert!(write(&mut full, "a backup").is_err());
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(write(&mut writer, "more").is_ok());
}

#[test]
fn completions_know_every_command() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
    {
        let text = completions::script(shell);
        for word in ["describe", "create", "diff", "export", "summary", "doctor"] {
            assert!(text.contains(word), "{word} for {shell}");
        }
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    man(folder.path()).unwrap();
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("lbctl.1").contains("Exit codes"), "{}", page("lbctl.1"));
    assert!(page("lbctl-apply.1").contains("prune") && page("lbctl-create-vip.1").contains("pool"));
    assert!(man(&folder.path().join("none")).is_err());
}

#[test]
fn a_verb_without_a_name_says_what_it_lacks_unless_there_is_only_one() {
    for kind in Kind::value_variants() {
        let named = name_of("describe", *kind, None);
        let only = [
            (Kind::BgpGlobal, "global"),
            (Kind::Status, "local"),
            (Kind::Config, "running"),
            (Kind::Version, "lbd"),
        ];
        if let Some((_, name)) = only.iter().find(|(only, _)| only == kind) {
            assert_eq!(named.unwrap(), *name);
        } else {
            let words = named.unwrap_err().to_string();
            assert_eq!(words, format!("say which one: lbctl describe {} NAME", kind.noun()));
        }
    }
}

#[test]
fn usage_says_what_may_be_said_instead_and_what_a_value_looks_like() {
    let said = |line: &str| {
        Arguments::try_parse_from(line.split(' ')).err().map(|error| error.to_string()).unwrap()
    };
    for (line, word) in [
        (
            "lbctl create vip web --port 80 --backend 10.0.0.1:80",
            "--address <ADDRESS>|--pool <POOL>",
        ),
        ("lbctl create vip web --pool p --port 80 --backend 10.0.0.1:", "such as 10.0.0.1:8080"),
        ("lbctl drain", "BACKEND|--vip <VIP>|--node"),
        ("lbctl delete", "KIND|--file <FILE>"),
    ] {
        assert!(said(line).contains(word), "{}", said(line));
    }
    let help = said("lbctl delete --help");
    let (own, everywhere) = help.split_once("Options of every command").unwrap();
    assert!(own.contains("tokens:") && !own.contains("interfaces:"), "{own}");
    assert!(!own.contains("--server") && everywhere.contains("--server"), "{help}");
}

#[test]
fn a_connection_that_does_not_come_about_says_what_to_do() {
    use std::io::{Error, ErrorKind};
    let remedy = |server: &str, error: Error| {
        let client = Client::new(server.parse().unwrap(), None, None, None).unwrap();
        client.remedy(&error)
    };
    let denied = remedy("unix:/run/lbd/lbd.sock", ErrorKind::PermissionDenied.into());
    assert!(denied.contains("api.users"), "{denied}");
    let refused = remedy("http://127.0.0.1:1", ErrorKind::ConnectionRefused.into());
    assert!(refused.contains("is it running"), "{refused}");
    let tls = |error: rustls::Error| Error::new(ErrorKind::InvalidData, error);
    let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    assert!(remedy("http://127.0.0.1:1", tls(plain)).contains("http://"));
    let signer = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    assert!(remedy("http://127.0.0.1:1", tls(signer)).contains("--ca-file"));
}

#[test]
fn what_is_only_seen_is_refused_in_one_sentence() {
    for kind in Kind::value_variants() {
        if let Home::Seen(_) = kind.home() {
            let words = apply::only_seen(*kind, "deleted").to_string();
            assert!(words.contains("is only seen, and cannot be deleted: "), "{words}");
        }
    }
}

/// The commands of a shell's line, each as its words: up to where its answer goes, and without a comment.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut word) = (vec![Vec::new()], None::<String>);
    let (mut quote, mut is_redirected) = (None, false);
    for character in line.chars() {
        match (quote, character) {
            (Some(end), character) if character == end => quote = None,
            (Some(_), character) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | ';' | '&' | '|' | '>' | '<') => {
                all.last_mut().unwrap().extend(word.take().filter(|_| !is_redirected));
                is_redirected |= matches!(character, '|' | '>' | '<');
                if matches!(character, ';' | '&') {
                    is_redirected = false;
                    all.push(Vec::new());
                }
            }
            (None, character) => word.get_or_insert_default().push(character),
        }
    }
    all.last_mut().unwrap().extend(word.filter(|_| !is_redirected));
    all.retain(|words| !words.is_empty());
    all
}

/// What `--help` shows to try, of a command and those below.
fn helps(command: &clap::Command) -> String {
    let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.get_subcommands().map(helps).fold(own, |all, next| format!("{all}\n{next}"))
}

#[test]
fn every_command_that_is_documented_is_understood() {
    let root = File::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let help = helps(&Arguments::command());
    let pages = ["README.md", "docs/how-to/operate.md", "lb-api/README.md"];
    let pages = pages.map(|page| std::fs::read_to_string(root.join(page)).unwrap());
    let pages = pages.iter().flat_map(|page| page.lines());
    let pages = pages.filter_map(|line| line.strip_prefix("# ").or(line.strip_prefix("$ ")));
    let mut tried = 0;
    for line in pages.chain(help.lines().map(str::trim_start)) {
        for command in commands(line).into_iter().filter(|words| words[0] == "lbctl") {
            let parsed = Arguments::try_parse_from(&command);
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} commands were found");
}

#[test]
fn a_token_goes_to_no_other_host_in_the_clear() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&token, "lbd_secret\n").unwrap();
    let client =
        |server: &str| Client::new(server.parse().unwrap(), Some(token.path()), None, None);
    for here in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080", "unix:/run/x"] {
        assert!(client(here).is_ok(), "{here}");
    }
    for far in ["http://192.0.2.1:8080", "http://localhost.example", "http://lbd"] {
        let said = client(far).err().unwrap().to_string();
        assert!(said.contains("use https://") && !said.contains("secret"), "{far}: {said}");
    }
    assert!(Client::new("http://192.0.2.1".parse().unwrap(), None, None, None).is_ok());
}
