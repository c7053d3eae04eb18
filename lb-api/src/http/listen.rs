//! Where the API listens: a Unix socket of its owner, and loopback.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::serve::Listener;
use lb_api_types::config::Api;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::for_loopback;

/// Connections of a listener at most; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A daemon answers there.
    #[error("another lbd answers at {0}: stop it, or set another api.socket")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is no socket: move it away, or set another api.socket")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {source}; set another api.socket")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The port cannot be taken.
    #[error("cannot listen on {address}: {source}; set another api.listen")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The listeners, bound; nobody is served yet.
#[derive(Debug)]
pub struct Listeners {
    unix: UnixListener,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Binds them. A socket that nobody listens on any more is removed.
    ///
    /// # Errors
    ///
    /// Another daemon answers there, or it cannot be made.
    pub async fn bind(api: &Api) -> Result<Self, ListenError> {
        let path = &api.socket;
        remove_stale(path)?;
        let error = |source| ListenError::Socket { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        let unix = bind_private(path).map_err(error)?;
        let tcp = match api.listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError::Tcp { address, source })?)
            }
        };
        Ok(Self { unix, tcp })
    }

    /// Where TCP is listened on, if it is.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }
}

/// Binds under another name first: the socket never is there with other rights than its owner's, and a daemon that
/// starts at the same time never removes it.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let _leftover = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Whether a daemon answers at a socket.
pub(crate) fn answers(path: &Path) -> bool {
    BlockingUnixStream::connect(path).is_ok()
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ListenError::Socket { path: path.to_owned(), source }),
        Ok(found) if !found.file_type().is_socket() => Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) if answers(path) => Err(ListenError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path)
            .map_err(|source| ListenError::Socket { path: path.to_owned(), source }),
    }
}

/// Serves the API until `stop` says so; requests that are under way are answered.
///
/// # Errors
///
/// A listener fails.
pub async fn serve(
    listeners: Listeners,
    router: Router,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    let unix = axum::serve(Bounded::new(listeners.unix), router.clone())
        .with_graceful_shutdown(stopped(stop.clone()));
    match listeners.tcp {
        None => unix.await,
        Some(tcp) => {
            let tcp = axum::serve(Bounded::new(tcp), for_loopback(router))
                .with_graceful_shutdown(stopped(stop));
            futures::future::try_join(unix.into_future(), tcp.into_future()).await.map(drop)
        }
    }
}

/// A listener that accepts no more than [`MAX_CONNECTIONS`] at a time.
struct Bounded<L> {
    inner: L,
    room: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    fn new(inner: L) -> Self {
        Self { inner, room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Held<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; if it were, connections would not be counted.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let (io, address) = self.inner.accept().await;
        (Held { io, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A connection and its place among those that may be open.
struct Held<I> {
    io: I,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Held<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Held<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
