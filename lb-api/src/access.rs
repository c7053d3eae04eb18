//! Who is let in, and what they may do.
//!
//! On the Unix socket the kernel says who it is: root and lbd's own user are admins, others have the role that
//! `api.users` gives them. Everybody else brings a bearer token. Nothing is allowed that is not said.

mod audit;
mod limiter;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lb_api_types::access::Role;

use self::audit::{Audit, Entry};
use self::limiter::Limiter;
pub(crate) use self::limiter::network;
pub use self::tokens::{MAX_TOKENS, TokenError, TokenHash, Tokens, Untaken};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this host, as the kernel says.
    Unix {
        /// Its user.
        uid: u32,
        /// Its process id, where it is known.
        pid: Option<i32>,
    },
    /// An address.
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid: Some(pid) } => write!(f, "uid {uid}, pid {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `uid 0` or `token ci`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The token that they brought.
    token: Option<TokenHash>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No token, where one is needed.
    NoToken,
    /// Nobody's token.
    Unknown,
    /// A token that was taken once.
    Expired,
    /// A user without a role.
    User(u32),
    /// A certificate without a role.
    Certificate,
    /// Too many failures from there; the time is how long to wait.
    Limited(Duration),
}

/// Why somebody is not let in, as metrics name it.
const FAILURES: [&str; 6] = ["unknown", "expired", "limited", "no_token", "user", "certificate"];

impl Denied {
    /// The place in [`FAILURES`].
    fn place(self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Expired => 1,
            Self::Limited(_) => 2,
            Self::NoToken => 3,
            Self::User(_) => 4,
            Self::Certificate => 5,
        }
    }
}

/// Who is let in.
#[derive(Debug)]
pub struct Access {
    /// The tokens.
    pub tokens: Tokens,
    users: BTreeMap<u32, Role>,
    /// Who may do what with a client's certificate, by its name.
    certificates: BTreeMap<String, Role>,
    failed: Mutex<Limiter>,
    asked: Mutex<Limiter>,
    /// Logins that failed, as [`FAILURES`] names them.
    failures: [AtomicU64; FAILURES.len()],
    changes: Audit,
    refusals: Audit,
}

impl Access {
    /// Over the state folder. `users` of the socket have these roles, and `own` is admin beside root. With it come sentences
    /// on what is damaged or cannot be written.
    ///
    /// # Errors
    ///
    /// The tokens cannot be read.
    pub fn open(
        folder: &Path,
        users: BTreeMap<u32, Role>,
        own: u32,
    ) -> io::Result<(Self, Vec<String>)> {
        let (tokens, damaged) = Tokens::open(folder.to_owned())?;
        let (changes, unwritten) = Audit::open(folder, audit::CHANGES);
        let (refusals, unwritten_too) = Audit::open(folder, audit::REFUSALS);
        let mut users = users;
        users.extend([(0, Role::Admin), (own, Role::Admin)]);
        let access = Self {
            tokens,
            users,
            certificates: BTreeMap::new(),
            failed: Mutex::new(Limiter::of_failures()),
            asked: Mutex::new(Limiter::of_requests()),
            failures: Default::default(),
            changes,
            refusals,
        };
        Ok((access, damaged.into_iter().chain(unwritten).chain(unwritten_too).collect()))
    }

    /// Whoever has a certificate of one of these names has its role.
    #[must_use]
    pub fn with_certificates(mut self, roles: BTreeMap<String, Role>) -> Self {
        self.certificates = roles;
        self
    }

    /// Counts a request, or says how long its source has to wait. This host's processes do not have to.
    ///
    /// # Errors
    ///
    /// It has to wait for so long.
    pub fn count(&self, peer: Peer) -> Result<(), Duration> {
        let Peer::Tcp(address) = peer else { return Ok(()) };
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.has_to_wait(address.ip(), now) {
            Some(wait) => Err(wait),
            None => {
                asked.count(address.ip(), now);
                Ok(())
            }
        }
    }

    /// Lets somebody in, or says why not. `token` is what they bring, and `certificate` the names of a certificate that is
    /// theirs.
    ///
    /// # Errors
    ///
    /// They are not let in.
    pub fn admit(
        &self,
        peer: Peer,
        token: Option<&str>,
        certificate: &[String],
    ) -> Result<Caller, Denied> {
        self.identify(peer, token, certificate).inspect_err(|denied| {
            if let Some(count) = self.failures.get(denied.place()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    fn identify(
        &self,
        peer: Peer,
        token: Option<&str>,
        certificate: &[String],
    ) -> Result<Caller, Denied> {
        let address = match (peer, token) {
            (Peer::Unix { uid, .. }, None) => {
                let role = *self.users.get(&uid).ok_or(Denied::User(uid))?;
                return Ok(Caller { name: format!("uid {uid}"), role, token: None });
            }
            // A token counts more than the user or the certificate: a service may share its user with others.
            (Peer::Unix { .. }, Some(_)) => None,
            (Peer::Tcp(_), None) if certificate.is_empty() => return Err(Denied::NoToken),
            (Peer::Tcp(_), None) => return self.by_certificate(certificate),
            (Peer::Tcp(address), Some(_)) => Some(address.ip()),
        };
        let now = Instant::now();
        let mut limiter = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = address.and_then(|address| limiter.has_to_wait(address, now));
        if let Some(wait) = wait {
            return Err(Denied::Limited(wait));
        }
        let token = TokenHash::of(token.unwrap_or_default());
        let denied = match self.tokens.whose(&token, SystemTime::now()) {
            Ok((name, role)) => {
                return Ok(Caller { name: format!("token {name}"), role, token: Some(token) });
            }
            Err(Untaken::Unknown) => Denied::Unknown,
            Err(Untaken::Expired) => Denied::Expired,
        };
        if let Some(address) = address {
            limiter.count(address, now);
        }
        Err(denied)
    }

    /// The best role that one of the names has.
    fn by_certificate(&self, names: &[String]) -> Result<Caller, Denied> {
        let roles = names.iter().filter_map(|name| Some((*self.certificates.get(name)?, name)));
        let (role, name) = roles.max_by_key(|(role, _)| *role).ok_or(Denied::Certificate)?;
        Ok(Caller { name: format!("certificate {name}"), role, token: None })
    }

    /// Whether somebody who was let in would be again: a token may have expired since, or be removed.
    pub fn is_still_in(&self, caller: &Caller) -> bool {
        let token = caller.token.as_ref();
        token.is_none_or(|token| self.tokens.whose(token, SystemTime::now()).is_ok())
    }

    /// Logins that failed, by reason.
    pub fn failures(&self) -> [(&'static str, u64); FAILURES.len()] {
        let mut counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        FAILURES.map(|reason| (reason, counts.next().unwrap_or_default()))
    }

    /// Writes down what somebody did or tried who may.
    pub fn record(&self, caller: &Caller, peer: Peer, request: &str, what: &str, status: u16) {
        let from = &peer.to_string();
        self.changes.write(&Entry { who: &caller.name, from, request, what, status });
    }

    /// Writes down what somebody tried who may not.
    pub fn record_refusal(
        &self,
        caller: Option<&Caller>,
        peer: Peer,
        request: &str,
        what: &str,
        status: u16,
    ) {
        let who = caller.map_or("", |caller| &caller.name);
        self.refusals.write(&Entry { who, from: &peer.to_string(), request, what, status });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Peer = Peer::Tcp(SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)),
        4000,
    ));

    fn unix(uid: u32) -> Peer {
        Peer::Unix { uid, pid: Some(7) }
    }

    #[test]
    fn users_have_their_roles_and_everybody_else_none() {
        let folder = tempfile::tempdir().unwrap();
        let users = [(1000, Role::Viewer)].into();
        let (access, _) = Access::open(folder.path(), users, 990).unwrap();
        let role = |peer| access.admit(peer, None, &[]).map(|caller| caller.role);
        assert_eq!(role(unix(0)), Ok(Role::Admin));
        assert_eq!(role(unix(990)), Ok(Role::Admin));
        assert_eq!(role(unix(1000)), Ok(Role::Viewer));
        assert_eq!(role(unix(1001)), Err(Denied::User(1001)));
        assert_eq!(role(FAR), Err(Denied::NoToken));
    }

    #[test]
    fn a_certificate_has_the_best_role_of_its_names_and_without_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (access, _) = Access::open(folder.path(), BTreeMap::new(), 0).unwrap();
        let roles = [("ci.example".into(), Role::Operator), ("all.example".into(), Role::Viewer)];
        let access = access.with_certificates(roles.into());
        let admit = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            access.admit(FAR, None, &names)
        };
        let caller = admit(&["all.example", "ci.example", "x"]).unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("certificate ci.example", Role::Operator));
        assert_eq!(admit(&["x"]), Err(Denied::Certificate));
        assert_eq!(admit(&[]), Err(Denied::NoToken));
    }

    #[test]
    fn a_token_counts_more_than_the_user_and_failures_are_limited_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (access, _) = Access::open(folder.path(), BTreeMap::new(), 0).unwrap();
        let make = |name: &str, expires_in_secs| {
            access.tokens.made(name, Role::Viewer, expires_in_secs, SystemTime::now())
        };
        let (token, expired) = (make("ci", None), make("old", Some(0)));
        let hash = Some(TokenHash::of(&token));
        let ci = Caller { name: "token ci".into(), role: Role::Viewer, token: hash };
        assert_eq!(access.admit(FAR, Some(&token), &[]), Ok(ci.clone()));
        assert_eq!(access.admit(unix(0), Some(&token), &[]), Ok(ci.clone()));
        assert_eq!(access.admit(unix(0), Some("x"), &[]), Err(Denied::Unknown));
        assert_eq!(access.admit(FAR, Some(&expired), &[]), Err(Denied::Expired));
        for _ in 0..9 {
            assert_eq!(access.admit(FAR, Some("guess"), &[]), Err(Denied::Unknown));
        }
        let limited = access.admit(FAR, Some(&token), &[]);
        assert!(matches!(limited, Err(Denied::Limited(_))), "{limited:?}");
        assert_eq!(access.admit(FAR, None, &[]), Err(Denied::NoToken));
        let counted = access.failures();
        assert_eq!(counted[..3], [("unknown", 10), ("expired", 1), ("limited", 1)]);
        assert_eq!(counted[3..], [("no_token", 1), ("user", 0), ("certificate", 0)]);
        assert!(access.is_still_in(&ci));
        access.tokens.remove("ci").unwrap();
        make("ci", None);
        assert!(!access.is_still_in(&ci), "the name has another token now");
    }
}
