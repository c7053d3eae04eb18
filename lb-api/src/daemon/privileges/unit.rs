//! What systemd's unit gives the daemon, held against what it needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use lb_api_types::config::Config;

use super::KEPT;

const UNIT: &str = include_str!("../../../lbd.service");

/// What is said for a name, in order.
fn said(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_gives_the_capabilities_that_are_kept_and_no_others() {
    let kept: BTreeSet<_> = KEPT.iter().map(ToString::to_string).collect();
    for name in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        let [given] = said(name)[..] else { panic!("{name} is said once") };
        let given: BTreeSet<_> = given.split_whitespace().map(str::to_owned).collect();
        assert_eq!(given, kept, "{name}");
    }
    assert_eq!((said("NoNewPrivileges"), said("LimitCORE")), (vec!["yes"], vec!["0"]));
}

#[test]
fn the_units_folders_are_those_that_lbd_uses_where_its_file_names_none() {
    let config = Config::default();
    let folder = |name: &str| said(name).first().copied().expect("it is said");
    assert_eq!(config.state_dir.0, Path::new("/var/lib").join(folder("StateDirectory")));
    let run = Path::new("/run").join(folder("RuntimeDirectory"));
    assert_eq!(config.api.socket.parent(), Some(run.as_path()));
    assert_eq!(config.dataplane.pin_dir, run.join("bpf"));
    assert_eq!(said("RuntimeDirectoryPreserve"), ["yes"], "pins outlive the service");
    assert_eq!(said("StateDirectoryMode"), ["0700"]);
}

/// Pins that are made in a mount namespace of the service's own are gone with it.
#[test]
fn nothing_in_the_unit_gives_the_service_a_mount_namespace() {
    const GIVES: [&str; 24] = [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateUsers",
        "PrivatePIDs",
        "PrivateIPC",
        "ProtectSystem",
        "ProtectHome",
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "DynamicUser",
    ];
    for name in GIVES {
        assert_eq!(said(name), [""; 0], "{name}");
    }
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lbd.service");
    // The programs are not there yet.
    std::fs::write(&file, UNIT.replace("/usr/local/bin/lbd", "/bin/true")).unwrap();
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let verify = verify.expect("`cargo xtask setup` brings it");
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && !said.contains("lbd.service:"), "{said}");
}

#[test]
fn what_the_unit_does_as_root_is_a_bpffs_of_lbds_user_and_nothing_where_there_is_one() {
    let [line] = said("ExecStartPre")
        .into_iter()
        .filter(|line| line.starts_with('+'))
        .collect::<Vec<_>>()[..]
    else {
        panic!("one line is root's")
    };
    let script = line.split_once('\'').and_then(|(_, rest)| rest.strip_suffix('\'')).unwrap();
    // A host without that user has its number.
    let script = script.replace("lbd:lbd", "64179:64179");
    let seen = "stat -f -c %T /run/lbd/bpf; stat -c '%u %g %a' /run/lbd/bpf; grep -c ' /run/lbd/bpf ' /proc/mounts";
    let all = format!("mount -t tmpfs tmpfs /run && {script} && {script} && {seen}");
    let done = Command::new("unshare").args(["--mount", "sh", "-c", &all]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(said, "bpf_fs\n64179 64179 1700\n1\n", "{}", String::from_utf8_lossy(&done.stderr));
}
