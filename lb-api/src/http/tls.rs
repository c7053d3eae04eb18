//! TLS with certificates that are followed: new files are taken for new connections, without a restart, and what a client
//! has shown counts for as long as those whom we trust now have signed it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_api_types::config::Tls;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use crate::config::credential;
use crate::store::{Version, version};

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What connections are accepted with.
#[derive(Clone)]
pub(super) struct Acceptor(Arc<Followed>);

struct Followed {
    /// Where the files are.
    tls: Tls,
    current: RwLock<Current>,
}

/// What the files say.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// Who says whose a client's certificate is, where any counts.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// Accepts TLS with files that are followed as long as the acceptor is there.
///
/// # Errors
///
/// One sentence on what is wrong with the files.
pub(super) fn acceptor(tls: &Tls) -> Result<Acceptor, String> {
    let tls = located(tls)?;
    let seen = versions(&tls);
    let current = RwLock::new(load(&tls)?);
    let followed = Arc::new(Followed { tls, current });
    tokio::spawn(follow(Arc::downgrade(&followed), seen));
    Ok(Acceptor(followed))
}

/// The same with paths for credentials.
fn located(tls: &Tls) -> Result<Tls, String> {
    let path =
        |field: &str, said: &Path| credential::path(said).map_err(|why| format!("{field} {why}"));
    let ca = tls.client_ca_file.as_deref().map(|file| path("client_ca_file", file));
    Ok(Tls {
        certificate_file: path("certificate_file", &tls.certificate_file)?,
        key_file: path("key_file", &tls.key_file)?,
        client_ca_file: ca.transpose()?,
        clients: tls.clients.clone(),
    })
}

impl Acceptor {
    /// As the files say it now.
    pub(super) fn current(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.current().config)
    }

    /// What the client of a connection has shown to be its own, if anything.
    pub(super) fn shown(&self, connection: &rustls::ServerConnection) -> Option<Shown> {
        let chain: Vec<_> = connection
            .peer_certificates()?
            .iter()
            .cloned()
            .map(CertificateDer::into_owned)
            .collect();
        let own = EndEntityCert::try_from(chain.first()?).ok()?;
        let names = own.valid_dns_names().map(str::to_owned).collect();
        Some(Shown { chain, names, followed: Arc::clone(&self.0) })
    }
}

/// A certificate that a client has shown to be its own when it connected.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<String>,
    followed: Arc<Followed>,
}

impl Shown {
    /// Its DNS names while it counts: a connection may outlast the certificate, and our trust in whoever signed it.
    pub(super) fn names(&self) -> &[String] {
        let verifier = self.followed.current().verifier;
        let counts =
            verifier.zip(self.chain.split_first()).is_some_and(|(verifier, (own, others))| {
                verifier.verify_client_cert(own, others, UnixTime::now()).is_ok()
            });
        if counts { &self.names } else { &[] }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.names).finish()
    }
}

async fn follow(followed: Weak<Followed>, mut seen: Vec<Option<Version>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(followed) = followed.upgrade() else { return };
        let before = seen.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = versions(&followed.tls);
            if now != before {
                followed.reload();
            }
            now
        });
        seen = looked.await.unwrap_or_default();
    }
}

impl Followed {
    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the files, or keeps what there is where they are not right, such as while they are replaced one by one.
    fn reload(&self) {
        match load(&self.tls) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                let file = self.tls.certificate_file.display();
                tracing::info!(%file, "certificates reloaded");
            }
            Err(why) => tracing::warn!(why, "the API's certificates stay what they were"),
        }
    }
}

/// Whether connections can be accepted with the files as they are now, and when the first of their certificates expires.
///
/// # Errors
///
/// One sentence on what is wrong with the files.
pub(crate) fn examine(tls: &Tls) -> Result<SystemTime, String> {
    let tls = located(tls)?;
    load(&tls)?;
    let file = &tls.certificate_file;
    let expires = |certificate: &CertificateDer<'_>| {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let (_, parsed) = parsed.map_err(|error| broken(file, &error))?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        Ok(UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let all = certificates(file)?.iter().map(expires).collect::<Result<Vec<_>, String>>()?;
    all.into_iter().min().ok_or_else(|| format!("{} has no certificate", file.display()))
}

/// What tells the files as they are now from those before.
pub(crate) fn versions(tls: &Tls) -> Vec<Option<Version>> {
    let Tls { certificate_file, key_file, client_ca_file, .. } = tls;
    let files = [Some(certificate_file), Some(key_file), client_ca_file.as_ref()];
    let path = |said: &PathBuf| credential::path(said).ok();
    files.into_iter().flatten().map(|said| version(&path(said)?)).collect()
}

fn load(tls: &Tls) -> Result<Current, String> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = tls.client_ca_file.as_deref().map(verifier).transpose()?;
    let config = match &verifier {
        None => config.with_no_client_auth(),
        Some(verifier) => config.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let key = certified(&tls.certificate_file, &tls.key_file)?;
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current { config: Arc::new(config), verifier })
}

/// Lets in whoever shows a certificate that these have signed, and whoever shows none: they bring a token.
fn verifier(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| broken(file, &error))?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| broken(file, &error))
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    // That the two belong together is looked at, too.
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
        format!("cannot use {} with {}: {error}", certificate.display(), key.display())
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| broken(file, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot use {}: {error}; write it as PEM", path.display())
}
