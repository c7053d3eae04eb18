//! The user that the daemon runs as, and what is made its own before.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lb_api_types::config::Config;
use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

use super::Files;

/// Who is asked for where the configuration names nobody.
const DEFAULT: &str = "lbd";
/// Folders of everybody, which nobody is given.
const SHARED: [&str; 5] = ["/", "/run", "/var", "/var/run", "/var/lib"];

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: Uid,
    gid: Gid,
}

/// Who the daemon is to become; nobody else where it is nobody's superior, or where the usual user does not exist.
pub(super) fn wanted(config: &Config) -> Result<Option<User>> {
    if !unistd::geteuid().is_root() {
        return Ok(None);
    }
    let named = config.user.as_deref();
    let found = unistd::User::from_name(named.unwrap_or(DEFAULT))?;
    let number = named.and_then(|name| name.parse().ok());
    match (found, number, named) {
        (Some(user), ..) => Ok(Some(User { uid: user.uid, gid: user.gid })),
        (None, Some(number), _) => {
            let uid = Uid::from_raw(number);
            let known = unistd::User::from_uid(uid)?;
            let gid = known.map_or(Gid::from_raw(number), |user| user.gid);
            Ok(Some(User { uid, gid }))
        }
        (None, None, Some(name)) => bail!(
            "user: this host has no user {name}: add it with `useradd --system {name}`, or name another one"
        ),
        (None, None, None) => Ok(None),
    }
}

impl User {
    /// Makes what the daemon writes this user's own: its state, its pins, and the folder of its socket.
    pub(super) fn own(self, config: &Config, files: &Files) -> Result<()> {
        let state = config.state_dir.0.as_path();
        for folder in &files.write {
            let is_everybodys = fs::metadata(folder).is_ok_and(|data| data.mode() & 0o002 != 0);
            if is_everybodys {
                continue;
            }
            if SHARED.iter().any(|shared| folder == Path::new(shared)) {
                bail!(
                    "{} cannot be made user {}'s: have api.socket, state_dir and dataplane.pin_dir in folders of their own, such as /run/lbd",
                    folder.display(),
                    self.uid
                );
            }
            let whole = folder == state || *folder == config.dataplane.pin_dir;
            self.own_path(folder, whole)
                .with_context(|| format!("cannot make {} user {}'s", folder.display(), self.uid))?;
        }
        Ok(())
    }

    /// Links are not followed: what they lead to stays whose it is.
    fn own_path(self, path: &Path, whole: bool) -> std::io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        if found.is_symlink() {
            return Ok(());
        }
        if (found.uid(), found.gid()) != (self.uid.as_raw(), self.gid.as_raw()) {
            chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
        }
        if whole && found.is_dir() {
            for entry in fs::read_dir(path)? {
                self.own_path(&entry?.path(), true)?;
            }
        }
        Ok(())
    }

    /// Becomes this user for good. Capabilities that are permitted stay so.
    pub(super) fn become_it(self) -> Result<()> {
        nix::sys::prctl::set_keepcaps(true)?;
        unistd::setgroups(&[])?;
        unistd::setresgid(self.gid, self.gid, self.gid)?;
        unistd::setresuid(self.uid, self.uid, self.uid)?;
        if unistd::setuid(Uid::from_raw(0)) != Err(Errno::EPERM) {
            bail!("the kernel gives root back to who gave it up");
        }
        Ok(())
    }

    /// Whether this user reaches what the configuration names; a key of root's own is the usual mistake.
    pub(super) fn reaches(self, config: &Config) -> Result<()> {
        for file in super::named(config) {
            self.reads(&file, file.display(), self.gid)?;
        }
        for folder in [&config.state_dir.0, &config.dataplane.pin_dir] {
            self.reads(folder, folder.display(), self.gid)?;
        }
        Ok(())
    }

    fn reads(self, path: &PathBuf, said: std::path::Display<'_>, gid: Gid) -> Result<()> {
        match fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
                "{said} cannot be read by user {}, which lbd runs as: let it with `chgrp {gid} {said} && chmod g+r {said}`, and let it pass through the folders above",
                self.uid
            ),
            // What is missing is said by who needs it.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_by_name_or_number_or_is_the_usual_one() {
        assert!(unistd::geteuid().is_root(), "root runs the tests");
        let wanted = |user: Option<&str>| {
            let config = Config { user: user.map(str::to_owned), ..Config::default() };
            super::wanted(&config)
        };
        let (nobody, number) = (wanted(Some("nobody")).unwrap(), wanted(Some("4242")).unwrap());
        assert!(nobody.is_some_and(|user| !user.uid.is_root()));
        let ids = |user: User| (user.uid.as_raw(), user.gid.as_raw());
        assert_eq!(number.map(ids), Some((4242, 4242)));
        let refused = wanted(Some("no-such-user")).unwrap_err().to_string();
        assert!(refused.contains("no-such-user") && refused.contains("useradd"), "{refused}");
    }

    #[test]
    fn what_is_made_ones_own_is_the_state_with_all_that_is_in_it_and_no_folder_of_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let (state, run) = (folder.path().join("state"), folder.path().join("run"));
        fs::create_dir_all(state.join("deep")).unwrap();
        fs::create_dir(&run).unwrap();
        fs::write(state.join("deep/file"), "").unwrap();
        fs::write(run.join("other"), "").unwrap();
        let other = folder.path().join("elsewhere");
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, state.join("link")).unwrap();
        let mut config = Config::default();
        config.state_dir.0 = state.clone();
        let user = User { uid: Uid::from_raw(4242), gid: Gid::from_raw(4343) };
        let write = [state.clone(), run.clone(), "/tmp".into()].into();
        user.own(&config, &Files { write, read: Default::default() }).unwrap();
        let owner = |path: &Path| fs::metadata(path).map(|data| (data.uid(), data.gid())).unwrap();
        assert_eq!(owner(&state.join("deep/file")), (4242, 4343));
        assert_eq!((owner(&run), owner(&run.join("other"))), ((4242, 4343), (0, 0)));
        assert_eq!((owner(&other), owner(Path::new("/tmp")).0), ((0, 0), 0));
        let shared = Files { write: [PathBuf::from("/run")].into(), read: Default::default() };
        let refused = user.own(&config, &shared).unwrap_err().to_string();
        assert!(refused.contains("/run cannot be made") && refused.contains("/run/lbd"));
    }
}
