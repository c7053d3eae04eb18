//! TLS with certificates that are followed: new files are taken for new connections, without a restart.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use lb_api_types::config::Tls;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one version of the files from another: inode, size and time of each.
type Version = [(u64, u64, i64, i64); 2];

/// The certificate in use.
#[derive(Debug)]
struct Followed {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// Accepts TLS with a certificate that is followed as long as the acceptor is there.
///
/// # Errors
///
/// One sentence on what is wrong with the files.
pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let Tls { certificate_file, key_file } = tls.clone();
    let seen = version(&certificate_file, &key_file).ok();
    let current = RwLock::new(Arc::new(load(&certificate_file, &key_file)?));
    let followed = Arc::new(Followed { certificate_file, key_file, current });
    tokio::spawn(follow(Arc::downgrade(&followed), seen));
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(followed);
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl ResolvesServerCert for Followed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn follow(followed: Weak<Followed>, mut seen: Option<Version>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(followed) = followed.upgrade() else { return };
        let looked = tokio::task::spawn_blocking(move || {
            let now = version(&followed.certificate_file, &followed.key_file).ok();
            if now != seen {
                followed.reload();
            }
            now
        });
        seen = looked.await.ok().flatten();
    }
}

impl Followed {
    /// Takes the files, or keeps what there is where they are not right, such as while they are replaced one by one.
    fn reload(&self) {
        match load(&self.certificate_file, &self.key_file) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!(file = %self.certificate_file.display(), "certificate reloaded");
            }
            Err(why) => tracing::warn!(why, "the API's certificate stays what it was"),
        }
    }
}

fn version(certificate: &Path, key: &Path) -> io::Result<Version> {
    let of = |path: &Path| {
        let data = fs::metadata(path)?;
        Ok::<_, io::Error>((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    };
    Ok([of(certificate)?, of(key)?])
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let broken = |path: &Path, error: &dyn std::fmt::Display| {
        format!("cannot use {}: {error}; write it as PEM", path.display())
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| broken(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    // That the two belong together is looked at, too.
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
        format!("cannot use {} with {}: {error}", certificate.display(), key.display())
    })
}
