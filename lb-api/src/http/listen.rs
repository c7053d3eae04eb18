//! Where the API listens: a Unix socket, and TCP where the configuration says so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use lb_api_types::config::Api;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::ServiceExt;

use super::guard::Names;
use super::problem::Refused;
use super::{for_loopback, tls};
use crate::access::{Peer, Source};

/// Connections of a listener that are served at most; of the socket root and lbd's own user have as many for themselves.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Connections of one source that are served or wait at most: an address, of IPv6 a /64; of the socket a user but those two.
pub(super) const MAX_OF_SOURCE: usize = 128;
/// Connections that wait for room beside them; more are closed at once.
const MAX_WAITING: usize = 1024;
/// How long a connection waits for room; then it is told to come back.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// How long whoever is told so may take to hear it.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// How long a request's header may take, the wait for a first or further request included.
pub(super) const HEADER_WITHIN: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may leave what it is told unread; what it reads counts as [`READ_RATE`] says.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Octets a second that a client reads at least, over [`READ_WITHIN`]: one that reads now and then holds what it is told no
/// longer than one that does not.
const READ_RATE: f64 = 4096.0;

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
    /// The files of TLS are not right.
    #[error("api.tls: {0}")]
    Tls(String),
}

/// The listeners, bound; nobody is served yet.
pub struct Listeners {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    tls: Option<tls::Acceptor>,
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
        let unix = bind(path, !api.users.is_empty()).map_err(error)?;
        let tls = api.tls.as_ref().map(tls::acceptor).transpose().map_err(ListenError::Tls)?;
        let tcp = match api.listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError::Tcp { address, source })?)
            }
        };
        Ok(Self { unix, tcp, tls })
    }

    /// Where TCP is listened on, if it is.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }
}

/// Binds under another name first: the socket never is there with other rights than it is to have, and a daemon that
/// starts at the same time never removes it.
fn bind(path: &Path, for_others: bool) -> io::Result<UnixListener> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let _leftover = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    // Who else may connect is then asked of each connection.
    let mode = if for_others { 0o666 } else { 0o600 };
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
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
pub async fn serve(listeners: Listeners, router: Router, stop: watch::Receiver<bool>) {
    let unix = listen(listeners.unix, None, router.clone(), stop.clone());
    match listeners.tcp {
        None => unix.await,
        Some(tcp) => {
            let here = tcp.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let router = if here { for_loopback(router) } else { router };
            tokio::join!(unix, listen(tcp, listeners.tls, router, stop));
        }
    }
}

/// A connection that says who is at its other end.
trait Known: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn peer(&self) -> io::Result<Peer>;
}

impl Known for UnixStream {
    fn peer(&self) -> io::Result<Peer> {
        let credentials = self.peer_cred()?;
        Ok(Peer::Unix { uid: credentials.uid(), pid: credentials.pid() })
    }
}

impl Known for TcpStream {
    fn peer(&self) -> io::Result<Peer> {
        self.peer_addr().map(Peer::Tcp)
    }
}

async fn listen<L: Listener<Io: Known>>(
    mut listener: L,
    tls: Option<tls::Acceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let (ours, others) = (Room::new(), Room::new());
    let sources = Sources::default();
    let under_way = GracefulShutdown::new();
    loop {
        let (io, _) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok(peer) = io.peer() else { continue };
        let Some(source) = sources.enter(peer) else {
            // Others are to find room: this one is not even told.
            tracing::debug!(%peer, most = MAX_OF_SOURCE, "a source has too many connections to the API");
            continue;
        };
        let room = if is_ours(peer) { &ours } else { &others };
        // The semaphores are never closed.
        let Ok(place) = Arc::clone(&room.waiting).try_acquire_owned() else { continue };
        let (tls, router, watcher) = (tls.clone(), router.clone(), under_way.watcher());
        let room = Arc::clone(&room.served);
        tokio::spawn(async move {
            let _source = source;
            let permit = timeout(ROOM_WITHIN, room.acquire_owned()).await;
            let ended = match permit {
                Ok(_permit) => {
                    drop(place);
                    welcome(io, peer, tls, router, watcher).await
                }
                Err(_) => timeout(REFUSED_WITHIN, refuse(io, tls)).await.unwrap_or(Ok(())),
            };
            if let Err(error) = ended {
                tracing::debug!("a connection to the API ends: {error}");
            }
        });
    }
    drop(listener);
    under_way.shutdown().await;
}

/// Says that there is no room, and reads what the client says until it has heard it: an answer to a connection that is closed
/// with something unread is lost.
async fn refuse<I: Known>(io: I, tls: Option<tls::Acceptor>) -> Ended {
    match tls {
        None => say_busy(io).await,
        Some(tls) => say_busy(tls.current().accept(io).await?).await,
    }
}

async fn say_busy(mut io: impl AsyncRead + AsyncWrite + Unpin) -> Ended {
    io.write_all(&Refused::busy(MAX_CONNECTIONS).as_http1()).await?;
    io.shutdown().await?;
    let mut unread = [0; 1024];
    while io.read(&mut unread).await? > 0 {}
    Ok(())
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn welcome<I: Known>(
    io: I,
    peer: Peer,
    tls: Option<tls::Acceptor>,
    router: Router,
    watcher: Watcher,
) -> Ended {
    let io = Read { io, stalled: None, owed: Duration::ZERO };
    match tls {
        None => talk(io, peer, Names::default(), router, watcher).await,
        Some(tls) => {
            let io = timeout(HANDSHAKE_WITHIN, tls.current().accept(io)).await??;
            let names = Names(tls.shown(io.get_ref().1).map(Arc::new));
            talk(io, peer, names, router, watcher).await
        }
    }
}

async fn talk<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    peer: Peer,
    names: Names,
    router: Router,
    watcher: Watcher,
) -> Ended {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(names.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    Ok(watcher.watch(http.serve_connection(TokioIo::new(io), service)).await?)
}

/// Root, or lbd's own user at the socket: whoever mends this host is kept out by nobody.
pub(super) fn is_ours(peer: Peer) -> bool {
    match peer {
        Peer::Unix { uid, .. } => uid == 0 || uid == nix::unistd::geteuid().as_raw(),
        Peer::Tcp(_) => false,
    }
}

/// Connections that are served, and that wait for it.
struct Room {
    served: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Room {
    fn new() -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        Self { served: of(MAX_CONNECTIONS), waiting: of(MAX_WAITING) }
    }
}

/// How many connections each source has.
#[derive(Clone, Debug, Default)]
struct Sources(Arc<Mutex<HashMap<Source, usize>>>);

/// A connection of a source, until it goes.
struct Entered(Option<(Sources, Source)>);

impl Sources {
    /// Counts a connection, unless its source has too many.
    fn enter(&self, peer: Peer) -> Option<Entered> {
        if is_ours(peer) {
            return Some(Entered(None));
        }
        let source = Source::from(peer);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(source).or_default();
        (*count < MAX_OF_SOURCE).then(|| {
            *count += 1;
            Entered(Some((self.clone(), source)))
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some((Sources(all), source)) = self.0.take() else { return };
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&source)),
        }
    }
}

/// A connection whose client reads what it is told: one that does not, or less than [`READ_RATE`], for [`READ_WITHIN`] is
/// ended.
struct Read<I> {
    io: I,
    /// Since when the client's side has no room, and what ends the connection.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
    /// What the client was waited for already and has not read since.
    owed: Duration,
}

impl<I> Read<I> {
    fn progress(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = &outcome {
            let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            let read = done.as_ref().map_or(0, |octets| *octets);
            let read = Duration::from_secs_f64(
                f64::from(u32::try_from(read).unwrap_or(u32::MAX)) / READ_RATE,
            );
            self.owed = (self.owed + waited).saturating_sub(read);
            return outcome;
        }
        let left = READ_WITHIN.saturating_sub(self.owed);
        let (_, end) = self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Read<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Read<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.progress(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| 0);
        self.progress(cx, outcome).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx).map_ok(|()| 0);
        self.progress(cx, outcome).map_ok(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_the_socket_has_so_many_connections_and_root_has_room_whatever_others_do() {
        let (sources, user) = (Sources::default(), |uid| Peer::Unix { uid, pid: None });
        let held: Vec<_> = (0..MAX_OF_SOURCE).map(|_| sources.enter(user(1000))).collect();
        assert!(held.iter().all(Option::is_some) && sources.enter(user(1000)).is_none());
        assert!(sources.enter(user(1001)).is_some());
        let ours: Vec<_> = (0..=MAX_CONNECTIONS).map(|_| sources.enter(user(0))).collect();
        assert!(ours.iter().all(Option::is_some) && is_ours(user(0)) && !is_ours(user(1000)));
        drop(held);
        assert!(sources.enter(user(1000)).is_some());
    }

    /// How long somebody is told something who reads so much every so often; `None` if they are not cut in ten minutes.
    async fn told_for(octets: usize, every: Duration) -> Option<Duration> {
        let (io, mut client) = tokio::io::duplex(1024);
        let mut io = Read { io, stalled: None, owed: Duration::ZERO };
        let reads = tokio::spawn(async move {
            let mut said = vec![0; octets];
            while client.read_exact(&mut said).await.is_ok() {
                sleep(every).await;
            }
        });
        let start = Instant::now();
        let told = async { while io.write_all(&[0; 1024]).await.is_ok() {} };
        let cut = timeout(Duration::from_secs(600), told).await;
        reads.abort();
        cut.ok().map(|()| start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_nothing_or_drop_by_drop_is_cut_and_who_is_slow_is_not() {
        let hour = Duration::from_secs(3600);
        let nothing = told_for(1, hour).await.expect("it is cut");
        assert!(nothing <= READ_WITHIN + Duration::from_secs(1), "{nothing:?}");
        let drops = told_for(64, Duration::from_secs(5)).await.expect("it is cut");
        assert!(drops <= READ_WITHIN * 2, "{drops:?}");
        assert_eq!(told_for(1024, Duration::from_millis(200)).await, None, "5 KB a second");
    }
}
