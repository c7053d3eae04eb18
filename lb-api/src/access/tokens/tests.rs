use std::fs;

use super::file::{NAME, parse, previous};
use super::*;
use crate::store::tests::crash::{MOST_CALLS, WRITER, Writer, wait_until_told};

impl Tokens {
    /// What a new one is known by.
    pub(crate) fn made(
        &self,
        name: &str,
        role: Role,
        expires_in_secs: Option<u64>,
        now: SystemTime,
    ) -> String {
        let made = self.make(name, TokenSpec { role, expires_in_secs }, now).unwrap();
        made.status.unwrap().token.unwrap()
    }
}

fn open(folder: &tempfile::TempDir) -> Tokens {
    Tokens::open(folder.path().to_owned()).unwrap()
}

#[test]
fn a_token_is_taken_until_it_expires_or_is_removed_and_only_its_hash_is_kept() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let tokens = open(&folder);
    let long = tokens.made("long", Role::Admin, None, now);
    let short = tokens.made("short", Role::Viewer, Some(60), now);
    assert_eq!(long.len(), 68);
    assert_ne!(long, short);
    let spec = TokenSpec { role: Role::Viewer, expires_in_secs: None };
    let again = tokens.make("long", spec, now);
    assert_eq!(again, Err(TokenError::Exists("long".into())));
    let tokens = open(&folder);
    let later = now + Duration::from_secs(61);
    assert_eq!(tokens.whose(&TokenHash::of(&long), later), Ok(("long".into(), Role::Admin)));
    assert_eq!(tokens.whose(&TokenHash::of(&short), now), Ok(("short".into(), Role::Viewer)));
    assert_eq!(tokens.whose(&TokenHash::of(&short), later), Err(Untaken::Expired));
    assert_eq!(tokens.whose(&TokenHash::of("lbd_00"), now), Err(Untaken::Unknown));
    assert_eq!(tokens.whose(&TokenHash::of(""), now), Err(Untaken::Unknown));
    let valid = |now| tokens.list(now)[1].status.clone().unwrap().conditions[0].reason.clone();
    assert_eq!((valid(now), valid(later)), ("NotExpired".into(), "Expired".into()));
    assert_eq!(tokens.get("short", now).unwrap().spec.expires_in_secs, Some(60));
    assert_eq!(tokens.get("none", now), Err(TokenError::Unknown("none".into())));
    for entry in fs::read_dir(folder.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(&long[4..]) && !text.contains(&short[4..]));
    }
    tokens.remove("long").unwrap();
    assert_eq!(tokens.remove("long"), Err(TokenError::Unknown("long".into())));
    assert_eq!(open(&folder).whose(&TokenHash::of(&long), now), Err(Untaken::Unknown));
}

#[test]
fn a_flipped_bit_lets_nobody_in_who_was_not_let_in_before() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let tokens = open(&folder);
    let old = tokens.made("old", Role::Viewer, None, now);
    let newer = tokens.made("newer", Role::Viewer, None, now);
    let path = folder.path().join(NAME);
    let good = fs::read(&path).unwrap();
    let all = parse(&good).unwrap();
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // White space may differ without a difference in meaning.
        assert!(
            parse(&damaged).is_ok_and(|found| found == all) || parse(&damaged).is_err(),
            "bit {bit}"
        );
    }
    fs::write(&path, &good[1..]).unwrap();
    let tokens = open(&folder);
    assert!(tokens.unwell().unwrap().contains("is damaged"));
    assert_eq!(tokens.whose(&TokenHash::of(&old), now), Ok(("old".into(), Role::Viewer)));
    assert_eq!(tokens.whose(&TokenHash::of(&newer), now), Err(Untaken::Unknown));
    fs::write(folder.path().join(previous()), "").unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(open(&folder).whose(&TokenHash::of(&old), now), Err(Untaken::Unknown));
}

#[test]
fn tokens_are_bounded_and_a_change_that_is_not_kept_is_none() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let tokens = open(&folder);
    let token = tokens.made("a", Role::Viewer, None, now);
    fs::create_dir(folder.path().join(format!("{NAME}.new"))).unwrap();
    assert!(matches!(tokens.remove("a"), Err(TokenError::NotKept(_))));
    assert!(tokens.whose(&TokenHash::of(&token), now).is_ok());
    let kept = tokens.lock().values().next().unwrap().clone();
    let all = (0..MAX_TOKENS).map(|n| (n.to_string(), kept.clone()));
    *tokens.lock() = all.collect();
    let spec = TokenSpec { role: Role::Viewer, expires_in_secs: None };
    assert_eq!(tokens.make("b", spec, now), Err(TokenError::TooMany));
}

#[test]
fn a_removed_token_stays_removed_when_the_file_is_damaged() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let tokens = open(&folder);
    let gone = TokenHash::of(&tokens.made("gone", Role::Admin, None, now));
    let stays = TokenHash::of(&tokens.made("stays", Role::Viewer, None, now));
    tokens.remove("gone").unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap().contains(&gone.0), "{}", path.display());
    }
    fs::write(folder.path().join(NAME), "{").unwrap();
    // It is kept aside, and whoever starts again before a change finds the same.
    for _ in 0..2 {
        let tokens = open(&folder);
        assert_eq!(tokens.whose(&gone, now), Err(Untaken::Unknown));
        assert_eq!(tokens.whose(&stays, now), Ok(("stays".into(), Role::Viewer)));
    }
    let aside = folder.path().join(format!("{NAME}.damaged"));
    assert_eq!(fs::read(&aside).unwrap(), b"{");
    let tokens = open(&folder);
    tokens.made("new", Role::Viewer, None, now);
    assert!(tokens.unwell().unwrap().contains("and remove it"));
    fs::remove_file(aside).unwrap();
    assert_eq!(tokens.unwell(), None);
}

#[test]
fn what_a_later_lbd_wrote_lets_nobody_in_and_is_left_alone() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let token = TokenHash::of(&open(&folder).made("ci", Role::Admin, None, now));
    let path = folder.path().join(NAME);
    let later = fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, &later).unwrap();
    let tokens = open(&folder);
    assert!(tokens.unwell().unwrap().contains("later version (2)"));
    assert_eq!(tokens.whose(&token, now), Err(Untaken::Unknown));
    let spec = TokenSpec { role: Role::Viewer, expires_in_secs: None };
    assert_eq!(tokens.make("new", spec, now), Err(TokenError::Later(path.clone(), 2)));
    assert_eq!(fs::read_to_string(&path).unwrap(), later);
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    assert_eq!(tokens.unwell(), None, "it is moved away, as was asked for");
    tokens.make("new", spec, now).unwrap();
}

#[test]
fn a_kill_at_any_system_call_of_making_a_token_leaves_it_made_or_not() {
    die_everywhere(&["old"], &["new", "old"], |tokens| {
        tokens.made("new", Role::Viewer, None, SystemTime::now());
    });
}

#[test]
fn a_kill_at_any_system_call_of_removing_a_token_leaves_it_there_or_in_no_file() {
    die_everywhere(&["old"], &[], |tokens| tokens.remove("old").unwrap());
}

/// Lets a process that changes tokens be killed at each of its system calls.
fn die_everywhere(before: &[&str], after: &[&str], change: fn(&Tokens)) {
    if let Some(folder) = std::env::var_os(WRITER) {
        wait_until_told();
        return change(&Tokens::open(folder.into()).unwrap());
    }
    let (mut outcomes, now) = (Vec::new(), SystemTime::now());
    for call in 0..MOST_CALLS {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let old = TokenHash::of(&open(&folder).made("old", Role::Admin, None, now));
        let was_killed = Writer::start(folder.path()).killed_at(call);
        let tokens = open(&folder);
        assert_eq!(tokens.unwell(), None, "call {call}");
        let found: Vec<_> = tokens.list(now).into_iter().map(|token| token.metadata.name).collect();
        assert!(found == before || found == after, "call {call}: {found:?}");
        let is_gone = !found.contains(&"old".to_owned());
        assert_eq!(tokens.whose(&old, now).is_err(), is_gone, "call {call}");
        // Nor does damage bring it back, once it was seen to be gone.
        let file = fs::read(folder.path().join(previous())).unwrap_or_default();
        assert!(!(is_gone && String::from_utf8_lossy(&file).contains(&old.0)), "call {call}");
        tokens.made("next", Role::Viewer, None, now);
        assert_eq!(open(&folder).list(now).len(), found.len() + 1, "call {call}");
        outcomes.push(found == after);
        if !was_killed {
            break;
        }
    }
    let first = outcomes.iter().position(|is_after| *is_after).expect("it was seen to end");
    assert!(first > 2 && outcomes[first..].iter().all(|after| *after), "{outcomes:?}");
}
