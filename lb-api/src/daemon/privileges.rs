//! What the daemon gives up before it listens to anybody: whoever takes it over gets packets, not the host.
//!
//! - Root: it becomes a user of its own (`user`; `lbd` where that exists), to whom its state, its pins and its socket's folder
//!   are given before.
//! - Capabilities but five, for good: they cannot be had back, not by a program that it would start either.
//! - Files but those that it needs (Landlock, where the kernel has it).
//! - System calls that it never makes (seccomp): they fail with `EPERM`.
//!
//! All of it holds for threads that are started afterwards, so it is done before there are any.

#[cfg(test)]
mod unit;
mod user;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use lb_api_types::config::{Config, Tls};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::config::credential;

/// Port 179; programs, tables and routes; ICMP errors.
const KEPT: [Capability; 5] = [
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
];

/// The host says what it is here, and links of certificates mostly lead here.
const READ: [&str; 6] = ["/etc", "/proc", "/sys", "/usr", "/lib", "/lib64"];

/// What starts other programs, looks into them, or changes the host as a whole.
const REFUSED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

/// Gives up what is not needed. Only the thread that calls this and those that it starts later are held by it.
///
/// # Errors
///
/// One sentence on what the kernel refuses; the daemon does not run with more than it needs.
pub fn drop(config: &Config) -> Result<()> {
    // The last that needs more: whoever may not mount says so with the remedy.
    lb_dataplane::mount_bpffs(&config.dataplane.pin_dir)?;
    let files = files(config)?;
    let user = user::wanted(config)?;
    nix::sys::prctl::set_no_new_privs().context("cannot rule out new privileges")?;
    bound().context("cannot give up capabilities")?;
    if let Some(user) = user {
        user.own(config, &files)?;
        user.become_it().context("cannot become another user")?;
    }
    capabilities().context("cannot give up capabilities")?;
    user.map_or(Ok(()), |user| user.reaches(config))?;
    let held = restrict_files(&files).context("cannot give up files (Landlock)")?;
    refuse_calls().context("cannot give up system calls (seccomp)")?;
    let uid = nix::unistd::geteuid().as_raw();
    tracing::info!(uid, capabilities = KEPT.len(), landlock = ?held, "privileges given up");
    Ok(())
}

/// Folders to write in and to read from.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    write: BTreeSet<PathBuf>,
    read: BTreeSet<PathBuf>,
}

fn files(config: &Config) -> Result<Files> {
    let mut write = BTreeSet::from([config.dataplane.pin_dir.clone()]);
    let made = [Some(config.state_dir.0.as_path()), config.api.socket.parent()];
    for folder in made.into_iter().flatten() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}: make it", folder.display()))?;
        write.insert(folder.to_owned());
    }
    let mut read: BTreeSet<PathBuf> = READ.iter().map(PathBuf::from).collect();
    for file in named(config) {
        // Files are replaced, and links led elsewhere: the folders of both are to be read.
        read.extend(file.parent().map(Path::to_owned));
        let target = fs::canonicalize(&file).ok();
        read.extend(target.and_then(|target| Some(target.parent()?.to_owned())));
    }
    Ok(Files { write, read: read.into_iter().filter(|folder| folder.exists()).collect() })
}

/// Keys and certificates that a configuration names, where they are; a credential that there is none of is said by whoever
/// needs it.
fn named(config: &Config) -> Vec<PathBuf> {
    let options = config.bgp.peers.iter().map(|peer| &peer.spec.options);
    let options = options.chain(config.bgp.peer_groups.iter().map(|group| &group.options));
    let keys = options.filter_map(|options| options.md5_key_file.as_deref());
    let tls = config.api.tls.iter().flat_map(|tls| {
        let Tls { certificate_file, key_file, client_ca_file, .. } = tls;
        [Some(certificate_file), Some(key_file), client_ca_file.as_ref()].into_iter().flatten()
    });
    keys.chain(tls.map(PathBuf::as_path)).filter_map(|file| credential::path(file).ok()).collect()
}

/// What a program that it would start could have at most.
fn bound() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    Ok(())
}

fn capabilities() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Where it is started with less, it has less; `doctor` says what lacks.
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn restrict_files(files: &Files) -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = AccessFs::from_all(abi) & !BitFlags::from(AccessFs::Execute);
    // A kernel with less holds less; `lbd` says so.
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.write, write))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

fn refuse_calls() -> Result<()> {
    let refused = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let eperm = u32::try_from(libc::EPERM)?;
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(eperm),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program).map_err(|error| io::Error::other(error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_configuration_are_reached_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("links")).unwrap();
        fs::create_dir_all(path("keys")).unwrap();
        fs::write(path("keys/tls.key"), "").unwrap();
        std::os::unix::fs::symlink(path("keys/tls.key"), path("links/tls.key")).unwrap();
        let mut config = Config::default();
        config.dataplane.pin_dir = path("bpf");
        config.state_dir.0 = path("state");
        config.api.socket = path("run/lbd.sock");
        let key_file = path("links/tls.key");
        let certificate_file = path("gone/tls.crt");
        config.api.tls =
            Some(Tls { certificate_file, key_file, client_ca_file: None, clients: vec![] });
        let Files { write, read } = files(&config).unwrap();
        assert_eq!(write, [path("bpf"), path("run"), path("state")].into());
        let ours: Vec<_> = read.iter().filter(|read| read.starts_with(folder.path())).collect();
        assert_eq!(ours, [&path("keys"), &path("links")]);
        assert!(path("state").is_dir(), "it is made while that is allowed");
    }

    #[test]
    fn a_thread_that_gave_everything_up_reads_and_starts_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mine")).unwrap();
        fs::create_dir(path("theirs")).unwrap();
        fs::write(path("theirs/secret"), "secret").unwrap();
        let held = Files { write: [path("mine")].into(), read: [PathBuf::from("/etc")].into() };
        let (mine, secret) = (path("mine/state"), path("theirs/secret"));
        let outcome = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            let status = restrict_files(&held).unwrap();
            refuse_calls().unwrap();
            fs::write(&mine, "state").unwrap();
            fs::read("/etc/passwd").unwrap();
            let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
            (status, fs::read(&secret).is_err(), unshared)
        });
        let (status, is_hidden, unshared) = outcome.join().unwrap();
        assert_eq!(unshared, Err(nix::errno::Errno::EPERM));
        // A kernel without Landlock says so, and hides nothing.
        assert_eq!(is_hidden, status != RulesetStatus::NotEnforced, "{status:?}");
    }
}
