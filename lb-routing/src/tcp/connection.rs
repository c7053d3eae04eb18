//! One connection: a reader with a fixed buffer and a writer with a bounded queue.
//!
//! A neighbour that stops reading stalls only itself: above [`CONGESTED`] the speaker makes no more
//! UPDATEs for it, at [`MAX_QUEUED`] or after SendHoldTime (RFC 9687) its
//! connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lb_routing_proto::speaker::ConnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Event;

/// Bytes read at once.
const READ_BUFFER: usize = 16 * 1024;
/// Pieces that wait to be written at most.
const QUEUE: usize = 4096;
/// Bytes that wait, above which the speaker holds UPDATEs back.
const CONGESTED: usize = 256 * 1024;
/// Bytes that wait, below which it goes on.
const DRAINED: usize = 64 * 1024;
/// Bytes that wait at most.
const MAX_QUEUED: usize = 8 * 1024 * 1024;
/// Time for the last words (a NOTIFICATION) after we closed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What became of bytes to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// They wait their turn.
    Well,
    /// They do, and it is enough for now; `Event::Drained` follows.
    Congested,
    /// There is no room, or nobody writes any more.
    Full,
}

/// The router's end of a connection. Dropped, it closes after what was queued is out.
#[derive(Debug)]
pub(crate) struct Connection {
    queue: mpsc::Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Connection {
    /// Starts a connection's work among `tasks`.
    pub(crate) fn start(
        conn: ConnId,
        stream: TcpStream,
        send_hold_time: Duration,
        events: mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let output = Output { pieces, waiting: Arc::clone(&waiting), send_hold_time };
        tasks.spawn(async move { work(conn, stream, output, events).await });
        Self { queue, waiting }
    }

    /// Queues bytes.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> Queued {
        let count = bytes.len();
        let waiting = self.waiting.fetch_add(count, Ordering::Relaxed) + count;
        if waiting > MAX_QUEUED || self.queue.try_send(bytes).is_err() {
            return Queued::Full;
        }
        if waiting > CONGESTED { Queued::Congested } else { Queued::Well }
    }
}

/// What the writer works with.
struct Output {
    pieces: mpsc::Receiver<Vec<u8>>,
    /// Their octets.
    waiting: Arc<AtomicUsize>,
    send_hold_time: Duration,
}

async fn work(conn: ConnId, stream: TcpStream, output: Output, events: mpsc::Sender<Event>) {
    let (reader, writer) = stream.into_split();
    let mut reading = tokio::spawn(read(conn, reader, events.clone()));
    let result = write(conn, writer, output, &events).await;
    if let Err(error) = result {
        closed(conn, error, &events).await;
    } else if timeout(LAST_WORDS, &mut reading).await.is_ok() {
        // The neighbour closed too: nothing unread turns our last words into a reset.
        return;
    }
    reading.abort();
}

async fn read(conn: ConnId, mut reader: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; READ_BUFFER];
    // Ends: with the stream.
    loop {
        let result = reader.read(&mut buffer).await;
        match result {
            Ok(0) => {
                return closed(conn, "the neighbour closed the connection".into(), &events).await;
            }
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if events.send(Event::Received { conn, bytes }).await.is_err() {
                    return;
                }
            }
            Err(error) => return closed(conn, error.to_string(), &events).await,
        }
    }
}

/// Writes until the router drops its end, then shuts the stream down.
async fn write(
    conn: ConnId,
    mut writer: OwnedWriteHalf,
    output: Output,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let Output { mut pieces, waiting, send_hold_time } = output;
    while let Some(piece) = pieces.recv().await {
        let mut rest = piece.as_slice();
        let mut stalled = Duration::ZERO;
        while !rest.is_empty() {
            if let Ok(result) = timeout(LAST_WORDS, writer.write(rest)).await {
                let written = result.map_err(|error| error.to_string())?;
                rest = rest.get(written..).unwrap_or_default();
                stalled = Duration::ZERO;
                continue;
            }
            stalled += LAST_WORDS;
            if pieces.is_closed() {
                return Ok(());
            }
            if stalled >= send_hold_time {
                let seconds = send_hold_time.as_secs();
                return Err(format!(
                    "send hold timer expired: the neighbour took nothing for {seconds} s (RFC 9687)"
                ));
            }
        }
        let before = waiting.fetch_sub(piece.len(), Ordering::Relaxed);
        let now = before - piece.len();
        if before > DRAINED && now <= DRAINED && !pieces.is_closed() {
            events.send(Event::Drained { conn }).await.map_err(|_| "the router stopped")?;
        }
    }
    let _already_gone = writer.shutdown().await;
    Ok(())
}

async fn closed(conn: ConnId, error: String, events: &mpsc::Sender<Event>) {
    if events.send(Event::Closed { conn, error }).await.is_err() {
        tracing::debug!("a connection ended after the router stopped");
    }
}
