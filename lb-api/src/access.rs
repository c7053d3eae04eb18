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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lb_api_types::access::Role;
use tokio::sync::watch;

pub use self::audit::Audit;
use self::audit::Entry;
use self::limiter::Limiter;
pub(crate) use self::limiter::Source;
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
    by: By,
}

/// What somebody was let in by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    /// The user that the kernel says they are.
    User,
    /// A token.
    Token(TokenHash),
    /// The name of a certificate.
    Certificate(String),
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
    /// A certificate without a role, or one that counts no longer.
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
    /// Lines about refusals.
    written: Mutex<Limiter>,
    /// Logins that failed, as [`FAILURES`] names them.
    failures: [AtomicU64; FAILURES.len()],
    changes: Arc<Audit>,
    refusals: Audit,
    /// Changes that are being carried out.
    under_way: watch::Sender<usize>,
}

/// A change that is being carried out, until it goes.
#[derive(Debug)]
pub struct UnderWay(Arc<Access>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|changes| *changes -= 1);
    }
}

impl Access {
    /// Over the state folder. `users` of the socket have these roles, and `own` is admin beside root.
    ///
    /// # Errors
    ///
    /// The tokens cannot be read.
    pub fn open(folder: &Path, users: BTreeMap<u32, Role>, own: u32) -> io::Result<Self> {
        let mut users = users;
        users.extend([(0, Role::Admin), (own, Role::Admin)]);
        Ok(Self {
            tokens: Tokens::open(folder.to_owned())?,
            users,
            certificates: BTreeMap::new(),
            failed: Mutex::new(Limiter::of_failures()),
            asked: Mutex::new(Limiter::of_requests()),
            written: Mutex::new(Limiter::of_lines()),
            failures: Default::default(),
            changes: Arc::new(Audit::open(folder, audit::CHANGES)),
            refusals: Audit::open(folder, audit::REFUSALS),
            under_way: watch::Sender::new(0),
        })
    }

    /// What is not well now: files that are damaged, or that cannot be written; what waits for that is tried again.
    pub fn unwell(&self) -> Vec<String> {
        let audits = [self.changes.unwell(), self.refusals.unwell()];
        audits.into_iter().flatten().chain(self.tokens.unwell()).collect()
    }

    /// Where it is written down what changes.
    pub fn audit(&self) -> Arc<Audit> {
        Arc::clone(&self.changes)
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
        let Peer::Tcp(_) = peer else { return Ok(()) };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take(peer.into(), Instant::now())
    }

    /// Lets somebody in, or says why not. `token` is what they bring, and `certificate` the names of a certificate that is
    /// theirs: none of one that counts no longer.
    ///
    /// # Errors
    ///
    /// They are not let in.
    pub fn admit(
        &self,
        peer: Peer,
        token: Option<&str>,
        certificate: Option<&[String]>,
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
        certificate: Option<&[String]>,
    ) -> Result<Caller, Denied> {
        // A token counts more than the user or the certificate: a service may share its user with others.
        let Some(token) = token else {
            return match peer {
                Peer::Unix { uid, .. } => {
                    let role = *self.users.get(&uid).ok_or(Denied::User(uid))?;
                    Ok(Caller { name: format!("uid {uid}"), role, by: By::User })
                }
                Peer::Tcp(_) => self.by_certificate(certificate.ok_or(Denied::NoToken)?),
            };
        };
        let (source, now) = (self.guesser(peer), Instant::now());
        let mut limiter = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = source.and_then(|source| limiter.has_to_wait(source, now)) {
            return Err(Denied::Limited(wait));
        }
        let token = TokenHash::of(token);
        let denied = match self.tokens.whose(&token, SystemTime::now()) {
            Ok((name, role)) => {
                return Ok(Caller { name: format!("token {name}"), role, by: By::Token(token) });
            }
            Err(Untaken::Unknown) => Denied::Unknown,
            Err(Untaken::Expired) => Denied::Expired,
        };
        if let Some(source) = source {
            limiter.count(source, now);
        }
        Err(denied)
    }

    /// Whose failures count together; nobody's who is an admin without a token.
    fn guesser(&self, peer: Peer) -> Option<Source> {
        let is_admin = match peer {
            Peer::Tcp(_) => false,
            Peer::Unix { uid, .. } => self.users.get(&uid) == Some(&Role::Admin),
        };
        (!is_admin).then(|| peer.into())
    }

    /// The best role that one of the names has.
    fn by_certificate(&self, names: &[String]) -> Result<Caller, Denied> {
        let roles = names.iter().filter_map(|name| Some((*self.certificates.get(name)?, name)));
        let (role, name) = roles.max_by_key(|(role, _)| *role).ok_or(Denied::Certificate)?;
        let by = By::Certificate(name.clone());
        Ok(Caller { name: format!("certificate {name}"), role, by })
    }

    /// Whether somebody who was let in would be again, with what their certificate's names are now: a token may have expired
    /// since, or be removed.
    pub fn is_still_in(&self, caller: &Caller, certificate: Option<&[String]>) -> bool {
        match &caller.by {
            By::User => true,
            By::Token(token) => self.tokens.whose(token, SystemTime::now()).is_ok(),
            By::Certificate(name) => certificate.is_some_and(|names| names.contains(name)),
        }
    }

    /// A change begins. What it does is written down before this goes.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|changes| *changes += 1);
        UnderWay(Arc::clone(self))
    }

    #[cfg(test)]
    pub(crate) fn has_changes_under_way(&self) -> bool {
        *self.under_way.borrow() > 0
    }

    /// Returns when no change is under way.
    pub async fn settled(&self) {
        let mut changes = self.under_way.subscribe();
        // The sender is this one's own: it is never closed.
        let _settled = changes.wait_for(|changes| *changes == 0).await;
    }

    /// Logins that failed, by reason.
    pub fn failures(&self) -> [(&'static str, u64); FAILURES.len()] {
        let mut counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        FAILURES.map(|reason| (reason, counts.next().unwrap_or_default()))
    }

    /// Writes down what somebody did or tried who may.
    pub fn record(&self, caller: &Caller, peer: Peer, request: &str, what: &str, status: u16) {
        let (who, from) = (caller.name.as_str(), &peer.to_string());
        self.changes.write(&Entry { who, from, request, what, status: Some(status) });
    }

    /// Writes down what somebody tried who may not; of a source that is refused on and on, not each time: it would push what
    /// others tried out of the log.
    pub fn record_refusal(
        &self,
        caller: Option<&Caller>,
        peer: Peer,
        request: &str,
        what: &str,
        status: u16,
    ) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.take(peer.into(), Instant::now()).is_err() {
            return;
        }
        drop(written);
        let (who, from) = (caller.map_or("", |caller| &caller.name), &peer.to_string());
        self.refusals.write(&Entry { who, from, request, what, status: Some(status) });
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
        let access = Access::open(folder.path(), users, 990).unwrap();
        let role = |peer| access.admit(peer, None, None).map(|caller| caller.role);
        assert_eq!(role(unix(0)), Ok(Role::Admin));
        assert_eq!(role(unix(990)), Ok(Role::Admin));
        assert_eq!(role(unix(1000)), Ok(Role::Viewer));
        assert_eq!(role(unix(1001)), Err(Denied::User(1001)));
        assert_eq!(role(FAR), Err(Denied::NoToken));
    }

    #[test]
    fn a_certificate_has_the_best_role_of_its_names_and_without_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), BTreeMap::new(), 0).unwrap();
        let roles = [("ci.example".into(), Role::Operator), ("all.example".into(), Role::Viewer)];
        let access = access.with_certificates(roles.into());
        let admit = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            access.admit(FAR, None, Some(&names))
        };
        let caller = admit(&["all.example", "ci.example", "x"]).unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("certificate ci.example", Role::Operator));
        assert_eq!(admit(&["x"]), Err(Denied::Certificate));
        assert_eq!(admit(&[]), Err(Denied::Certificate), "it counts no longer");
        assert!(access.is_still_in(&caller, Some(&["ci.example".into()])));
        assert!(!access.is_still_in(&caller, Some(&[])) && !access.is_still_in(&caller, None));
    }

    #[test]
    fn a_token_counts_more_than_the_user_and_failures_are_limited_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), BTreeMap::new(), 0).unwrap();
        let make = |name: &str, expires_in_secs| {
            access.tokens.made(name, Role::Viewer, expires_in_secs, SystemTime::now())
        };
        let (token, expired) = (make("ci", None), make("old", Some(0)));
        let by = By::Token(TokenHash::of(&token));
        let ci = Caller { name: "token ci".into(), role: Role::Viewer, by };
        assert_eq!(access.admit(FAR, Some(&token), None), Ok(ci.clone()));
        assert_eq!(access.admit(unix(0), Some(&token), None), Ok(ci.clone()));
        assert_eq!(access.admit(unix(0), Some("x"), None), Err(Denied::Unknown));
        assert_eq!(access.admit(FAR, Some(&expired), None), Err(Denied::Expired));
        for _ in 0..9 {
            assert_eq!(access.admit(FAR, Some("guess"), None), Err(Denied::Unknown));
        }
        let limited = access.admit(FAR, Some(&token), None);
        assert!(matches!(limited, Err(Denied::Limited(_))), "{limited:?}");
        assert_eq!(access.admit(FAR, None, None), Err(Denied::NoToken));
        let counted = access.failures();
        assert_eq!(counted[..3], [("unknown", 10), ("expired", 1), ("limited", 1)]);
        assert_eq!(counted[3..], [("no_token", 1), ("user", 0), ("certificate", 0)]);
        assert!(access.is_still_in(&ci, None));
        access.tokens.remove("ci").unwrap();
        make("ci", None);
        assert!(!access.is_still_in(&ci, None), "the name has another token now");
    }

    #[test]
    fn users_of_the_socket_who_guess_have_to_wait_and_admins_who_need_no_token_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let users = [(1000, Role::Viewer)].into();
        let access = Access::open(folder.path(), users, 990).unwrap();
        let guess = |uid| (0..20).map(|_| access.admit(unix(uid), Some("guess"), None)).last();
        for uid in [1000, 1001] {
            assert!(matches!(guess(uid), Some(Err(Denied::Limited(_)))), "{uid}");
        }
        for uid in [0, 990] {
            assert_eq!(guess(uid), Some(Err(Denied::Unknown)), "{uid}");
        }
        assert!(access.admit(unix(1000), None, None).is_ok(), "the user is who the kernel says");
    }

    #[test]
    fn whoever_is_refused_on_and_on_does_not_fill_the_log_of_refusals() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), BTreeMap::new(), 0).unwrap();
        (0..1000).for_each(|_| access.record_refusal(None, FAR, "1", "GET /", 401));
        access.record_refusal(None, unix(1000), "2", "GET /", 403);
        let text = std::fs::read_to_string(folder.path().join(audit::REFUSALS)).unwrap();
        let lines = text.lines().count();
        assert!((2..=100).contains(&lines), "{lines}");
        assert!(text.contains("uid 1000"), "others are written down");
    }
}
