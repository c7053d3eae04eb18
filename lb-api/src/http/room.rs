//! How many requests are in work at a time. Their documents and answers are held in memory until they are read, so this bounds
//! that, too, whatever comes over how many connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::listen::is_ours;
use super::problem::Refused;
use crate::access::Peer;

/// Requests in work at most, of root and lbd's own user over the socket, apart of its other users, and apart of whoever comes over
/// TCP.
pub(super) const MAX_REQUESTS: usize = 64;
/// How long a request waits for others to end; then it is told to come back.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// The room that there is: who comes over TCP takes none from the socket, nor do its users from root.
#[derive(Clone, Debug)]
pub(super) struct Room {
    ours: Arc<Semaphore>,
    unix: Arc<Semaphore>,
    tcp: Arc<Semaphore>,
}

/// A place in it.
#[derive(Debug)]
pub(super) struct Place(
    #[expect(dead_code, reason = "it is given back when it goes")] OwnedSemaphorePermit,
);

impl Room {
    pub(super) fn new() -> Self {
        let all = || Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { ours: all(), unix: all(), tcp: all() }
    }

    /// A place, when there is one.
    pub(super) async fn place(&self, peer: Peer) -> Result<Place, Refused> {
        let places = match peer {
            Peer::Unix { .. } if is_ours(peer) => &self.ours,
            Peer::Unix { .. } => &self.unix,
            Peer::Tcp(_) => &self.tcp,
        };
        match timeout(ROOM_WITHIN, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Refused::crowded(MAX_REQUESTS)),
        }
    }
}

/// The answer keeps the place until it is read, or nobody reads it any more.
pub(super) fn keep(answer: Response, place: Place) -> Response {
    answer.map(|body| Body::new(Kept { body, _place: place }))
}

struct Kept {
    body: Body,
    _place: Place,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
