//! Looks after the API's certificates: whether their files can be used, and when they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_api_types::config::Tls;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::Audit;
use crate::alarms::{Alarms, Part};
use crate::{clock, http};

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks in a row that have to find them unusable: files are replaced one by one.
const LOOKS: u32 = 2;
/// How long before they expire that is said.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Looks after them until the daemon ends; when the first of them expires, as it was seen last.
pub(super) fn spawn(
    tls: Option<Tls>,
    alarms: Alarms,
    audit: Arc<Audit>,
) -> watch::Receiver<Option<SystemTime>> {
    let (expires, seen) = watch::channel(None);
    if let Some(tls) = tls {
        tokio::spawn(look(tls, alarms, audit, expires));
    }
    seen
}

async fn look(
    tls: Tls,
    alarms: Alarms,
    audit: Arc<Audit>,
    expires: watch::Sender<Option<SystemTime>>,
) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failed, mut taken) = (0, None);
    loop {
        tick.tick().await;
        let files = tls.clone();
        let looked =
            tokio::task::spawn_blocking(move || (http::versions(&files), http::examine(&files)));
        let Ok((versions, found)) = looked.await else { return };
        failed = if found.is_err() { failed + 1 } else { 0 };
        if (1..LOOKS).contains(&failed) {
            continue;
        }
        if let Ok(at) = found {
            expires.send_replace(Some(at));
            // They say who is let in, and nobody has asked for that by a request.
            let before = taken.replace(versions.clone());
            if before.is_some_and(|before| before != versions) {
                let until = clock::rfc3339(at);
                audit.record_own(&format!(
                    "the files of api.tls are others than before; the API's certificate expires at {until}"
                ));
            }
        }
        alarms.set(Part::Certificates, sentence(&tls, found, SystemTime::now()));
    }
}

/// Seconds until a moment; below zero where it is over.
pub(super) fn remaining(at: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(over) => -seconds(over.duration()),
    }
}

/// What is to be said of them.
fn sentence(tls: &Tls, found: Result<SystemTime, String>, now: SystemTime) -> Vec<String> {
    let file = tls.certificate_file.display();
    let said = match found {
        Err(why) => format!("the API's certificates stay what they were: {why}"),
        Ok(at) if at <= now => {
            format!("{file} has expired at {}: replace it", clock::rfc3339(at))
        }
        Ok(at) if at <= now + SOON => {
            format!("{file} expires at {}: replace it before", clock::rfc3339(at))
        }
        Ok(_) => return Vec::new(),
    };
    vec![said]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn certificates_that_expire_or_cannot_be_used_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let tls = Tls {
            certificate_file: path("tls.crt"),
            key_file: path("tls.key"),
            client_ca_file: None,
            clients: vec![],
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["lbd.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 31);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(&tls.certificate_file, certificate.pem()).unwrap();
        fs::write(&tls.key_file, key.serialize_pem()).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_896_048_000);
        assert_eq!(http::examine(&tls), Ok(at));

        let said = |now| sentence(&tls, http::examine(&tls), now).join("");
        assert_eq!(said(at - SOON - Duration::from_secs(1)), "");
        assert!(said(at - SOON).contains("expires at 2030-01-31T00:00:00"), "{}", said(at - SOON));
        assert!(said(at).contains("has expired at 2030-01-31"), "{}", said(at));
        fs::write(&tls.key_file, "damage").unwrap();
        assert!(said(at - SOON).contains("stay what they were: cannot use"), "{}", said(at));
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_are_replaced_are_written_down_once_with_until_when_they_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let tls = Tls {
            certificate_file: path("tls.crt"),
            key_file: path("tls.key"),
            client_ca_file: None,
            clients: vec![],
        };
        let write = |year| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["lbd.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 31);
            fs::write(&tls.certificate_file, params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(&tls.key_file, key.serialize_pem()).unwrap();
        };
        write(2040);
        let audit = Arc::new(Audit::open(folder.path(), "audit.log"));
        let alarms = Alarms::new(crate::events::Events::default());
        let mut expires = spawn(Some(tls.clone()), alarms, audit);
        expires.changed().await.unwrap();
        write(2041);
        let before = *expires.borrow();
        expires.wait_for(|at| *at != before).await.unwrap();
        // Nothing is said of files that stay what they are.
        for _ in 0..3 {
            expires.changed().await.unwrap();
        }
        let said = fs::read_to_string(path("audit.log")).unwrap();
        let [line] = &said.lines().collect::<Vec<_>>()[..] else { panic!("one line: {said}") };
        assert!(
            line.contains("\"who\":\"lbd\"") && line.contains("the files of api.tls"),
            "{line}"
        );
        assert!(line.contains("expires at 2041-01-31T00:00:00"), "{line}");
    }
}
