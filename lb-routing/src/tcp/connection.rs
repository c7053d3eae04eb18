//! One connection: a reader with a fixed buffer and a writer with a bounded queue.
//!
//! What is queued may be shared with other connections, and is written as it is, many pieces with one
//! call. A neighbour that stops reading stalls only itself: above [`SOME`] the speaker makes no
//! UPDATEs for it alone, above [`ENOUGH`] none at all, at [`MAX_QUEUED`] or after SendHoldTime
//! (RFC 9687) its connection ends. A quarter and half of [`QUEUE`] count like these.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lb_routing_proto::speaker::{Backlog, ConnId};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Event;

/// Bytes read at once: what is in them is told to everybody before the next connection has its turn, so that a full table
/// must not come in larger pieces (some 3,000 prefixes) than a millisecond or two.
const READ_BUFFER: usize = 16 * 1024;
/// Reads of one connection that wait for the router at most: whoever sends much is not in the way of the others.
const AHEAD: usize = 2;
/// Pieces that wait to be written at most.
const QUEUE: usize = 4096;
/// Bytes that wait, above which the speaker makes nothing for this connection alone.
const SOME: usize = 256 * 1024;
/// Bytes that wait, above which it holds UPDATEs back that others are told too.
const ENOUGH: usize = 4 * 1024 * 1024;
/// Bytes that wait, below which it goes on.
const DRAINED: usize = 64 * 1024;
/// Bytes that wait at most.
const MAX_QUEUED: usize = 16 * 1024 * 1024;
/// Pieces that are written with one call.
const PIECES: usize = 64;
/// Time for the last words (a NOTIFICATION) after we closed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Connections at most that never were a session for whose last words there is time at once; others of them close before the
/// neighbour has closed too, which may cost it our reason. So whoever connects again and again does not use up everybody's file
/// descriptors. Of sessions each neighbour has one at a time.
pub(crate) const GOODBYES: usize = 256;

/// What became of bytes to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// They wait their turn.
    Well,
    /// They do, and it is much; `Event::Drained` follows.
    Much(Backlog),
    /// There is no room, or nobody writes any more.
    Full,
}

/// The router's end of a connection. Dropped, it closes after what was queued is out.
#[derive(Debug)]
pub(crate) struct Connection {
    queue: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    /// The speaker holds back until `Event::Drained`.
    held: Arc<AtomicBool>,
    /// It is a session, or was one.
    established: Arc<AtomicBool>,
}

impl Connection {
    /// Starts a connection's work among `tasks`.
    pub(crate) fn start(
        conn: ConnId,
        stream: TcpStream,
        send_hold_time: Duration,
        events: mpsc::Sender<Event>,
        (tasks, goodbyes): (&mut JoinSet<()>, &Arc<Semaphore>),
    ) -> Self {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(AtomicBool::new(false));
        let (waits, holds) = (Arc::clone(&waiting), Arc::clone(&held));
        let output = Output { pieces, waiting: waits, held: holds, send_hold_time };
        let established = Arc::new(AtomicBool::new(false));
        let goodbye = Goodbye { places: Arc::clone(goodbyes), due: Arc::clone(&established) };
        tasks.spawn(async move { work(conn, stream, output, (events, goodbye)).await });
        Self { queue, waiting, held, established }
    }

    /// It is a session: there is time for its last words, however many others end at the same time.
    pub(crate) fn establish(&self) {
        self.established.store(true, Ordering::SeqCst);
    }

    /// Queues bytes.
    pub(crate) fn send(&self, bytes: Bytes) -> Queued {
        let count = bytes.len();
        let waiting = self.waiting.fetch_add(count, Ordering::SeqCst) + count;
        if waiting > MAX_QUEUED || self.queue.try_send(bytes).is_err() {
            return Queued::Full;
        }
        let pieces = self.queue.max_capacity() - self.queue.capacity();
        let backlog = if waiting > ENOUGH || pieces > QUEUE / 2 {
            Backlog::Enough
        } else if waiting > SOME || pieces > QUEUE / 4 {
            Backlog::Some
        } else {
            return Queued::Well;
        };
        self.held.store(true, Ordering::SeqCst);
        // The writer may have finished before it could see that somebody waits for it.
        if self.waiting.load(Ordering::SeqCst) == 0 && self.held.swap(false, Ordering::SeqCst) {
            return Queued::Well;
        }
        Queued::Much(backlog)
    }
}

/// What the writer works with.
struct Output {
    pieces: mpsc::Receiver<Bytes>,
    /// Their octets.
    waiting: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
    send_hold_time: Duration,
}

/// Whether there is time for the last words.
struct Goodbye {
    /// Of connections that never were a session.
    places: Arc<Semaphore>,
    /// It is a session, or was one.
    due: Arc<AtomicBool>,
}

impl Goodbye {
    /// Waits for `end` if there is time; says whether it came.
    async fn wait(&self, end: impl Future) -> bool {
        let due = self.due.load(Ordering::SeqCst);
        let place = (!due).then(|| self.places.try_acquire());
        // Held until the end.
        !matches!(place, Some(Err(_))) && timeout(LAST_WORDS, end).await.is_ok()
    }
}

async fn work(
    conn: ConnId,
    stream: TcpStream,
    output: Output,
    (events, goodbye): (mpsc::Sender<Event>, Goodbye),
) {
    let (reader, writer) = stream.into_split();
    let mut reading = tokio::spawn(read(conn, reader, events.clone()));
    let result = write(conn, writer, output, &events).await;
    if let Err(error) = result {
        closed(conn, error, &events).await;
    } else if goodbye.wait(&mut reading).await {
        // The neighbour closed too: nothing unread turns our last words into a reset.
        return;
    }
    reading.abort();
}

async fn read(conn: ConnId, mut reader: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut buffer = BytesMut::new();
    let turns = Arc::new(Semaphore::new(AHEAD));
    // Ends: with the stream.
    loop {
        buffer.reserve(READ_BUFFER);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => {
                return closed(conn, "the neighbour closed the connection".into(), &events).await;
            }
            Ok(_) => {
                let bytes = buffer.split().freeze();
                // It is never closed.
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
                if events.send(Event::Received { conn, bytes, turn }).await.is_err() {
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
    let Output { mut pieces, waiting, held, send_hold_time } = output;
    let mut queue = VecDeque::with_capacity(PIECES);
    let mut stalled = Duration::ZERO;
    // Ends: when the router has dropped its end and all is out, or nothing goes out any more.
    loop {
        if queue.is_empty() {
            let Some(piece) = pieces.recv().await else { break };
            queue.push_back(piece);
        }
        while queue.len() < PIECES
            && let Ok(piece) = pieces.try_recv()
        {
            queue.push_back(piece);
        }
        let Ok(result) = timeout(LAST_WORDS, write_some(&mut writer, &queue)).await else {
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
            continue;
        };
        stalled = Duration::ZERO;
        let written = result.map_err(|error| error.to_string())?;
        drop_written(&mut queue, written);
        let now = waiting.fetch_sub(written, Ordering::SeqCst) - written;
        let nearly_empty = now <= DRAINED && pieces.len() <= PIECES;
        if nearly_empty && !pieces.is_closed() && held.swap(false, Ordering::SeqCst) {
            events.send(Event::Drained { conn }).await.map_err(|_| "the router stopped")?;
        }
    }
    let _already_gone = writer.shutdown().await;
    Ok(())
}

async fn write_some(writer: &mut OwnedWriteHalf, queue: &VecDeque<Bytes>) -> io::Result<usize> {
    let slices: SmallVec<[IoSlice<'_>; PIECES]> =
        queue.iter().map(|piece| IoSlice::new(piece)).collect();
    writer.write_vectored(&slices).await
}

/// Takes octets off the front.
fn drop_written(queue: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(piece) = queue.front_mut() {
        if piece.len() > written {
            return piece.advance(written);
        }
        written -= piece.len();
        queue.pop_front();
    }
}

async fn closed(conn: ConnId, error: String, events: &mpsc::Sender<Event>) {
    if events.send(Event::Closed { conn, error }).await.is_err() {
        tracing::debug!("a connection ended after the router stopped");
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn there_is_time_for_the_last_words_of_every_session_but_of_so_many_other_connections_only()
     {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (events, _heard) = mpsc::channel(8);
        let (mut tasks, goodbyes) = (JoinSet::new(), Arc::new(Semaphore::new(1)));
        let mut theirs = Vec::new();
        // Sessions first, which leave the others their place.
        for number in 0..5 {
            let stream = TcpStream::connect(at).await.unwrap();
            theirs.push(listener.accept().await.unwrap());
            let (conn, all) = (ConnId(number), (&mut tasks, &goodbyes));
            let connection = Connection::start(conn, stream, LAST_WORDS, events.clone(), all);
            if number < 2 {
                connection.establish();
            }
        }
        let mut done = 0;
        while let Ok(Some(ended)) = timeout(LAST_WORDS / 2, tasks.join_next()).await {
            ended.unwrap();
            done += 1;
        }
        assert_eq!((done, tasks.len()), (2, 3), "two sessions and one other have their time");
    }
}
