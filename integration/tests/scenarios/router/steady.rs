//! Packets at a steady rate: how many of them are lost says how long a way was gone.

use std::fmt;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use integration::lab::Lab;
use integration::netns::Netns;
use integration::wait::eventually;

const PORT: u16 = 7002;
/// Packets a second, and the flows that they belong to in turn.
const RATE: u32 = 2000;
const FLOWS: usize = 256;
/// What is under way arrives within this, or not at all.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How many have arrived, at any next hop.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    /// Counts those that arrive at a node.
    pub(super) fn count_at(&self, node: &Netns) -> Result<()> {
        let socket = node.within(|| UdpSocket::bind(("10.99.0.1", PORT)))??;
        let arrived = self.clone();
        thread::spawn(move || {
            let mut datagram = [0; 16];
            while socket.recv(&mut datagram).is_ok() {
                arrived.0.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(())
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The sender.
pub(super) struct Steady {
    over: Arc<AtomicBool>,
    sent: JoinHandle<u64>,
    arrivals: Arrivals,
    before: u64,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    lost: u64,
    sent: u64,
}

impl Lost {
    /// How long the flows of one of so many next hops got nowhere.
    pub(super) fn away(self, hops: usize) -> Duration {
        Duration::from_secs_f64(self.lost as f64 * hops as f64 / f64::from(RATE))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} packets lost", self.lost, self.sent)
    }
}

impl Steady {
    /// Begins to send, once a first packet has arrived.
    pub(super) fn begin(lab: &Lab, arrivals: &Arrivals) -> Result<Self> {
        let sockets = lab.netns("client")?.within(|| {
            let socket = |_| {
                let socket = UdpSocket::bind(("10.1.0.2", 0))?;
                socket.connect(("10.99.0.1", PORT))?;
                Ok(socket)
            };
            (0..FLOWS).map(socket).collect::<std::io::Result<Vec<_>>>()
        })??;
        let (over, before) = (Arc::<AtomicBool>::default(), arrivals.now());
        let until = Arc::clone(&over);
        let sent = thread::spawn(move || send(&sockets, &until));
        let steady = Self { over, sent, arrivals: arrivals.clone(), before };
        eventually("packets arrive steadily", UNDER_WAY * 10, || {
            ensure!(arrivals.now() > before, "none did");
            Ok(())
        })?;
        Ok(steady)
    }

    /// Sends no more, and says what became of all.
    pub(super) fn end(self) -> Result<Lost> {
        self.over.store(true, Ordering::Relaxed);
        let sent = self.sent.join().map_err(|_| anyhow!("the sender panicked"))?;
        let lost = || sent.saturating_sub(self.arrivals.now() - self.before);
        // At the deadline what has not come is lost.
        let _some_are = eventually("all packets arrive", UNDER_WAY, || {
            ensure!(lost() == 0, "some did not");
            Ok(())
        });
        ensure!(sent > 0, "nothing was sent");
        Ok(Lost { lost: lost(), sent })
    }
}

/// Returns how many were sent.
fn send(sockets: &[UdpSocket], over: &AtomicBool) -> u64 {
    let start = Instant::now();
    let mut sent = 0;
    for socket in sockets.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // One that is refused is lost, too.
        let _refused = socket.send(b"steady");
        sent += 1;
        let due = Duration::from_secs_f64(sent as f64 / f64::from(RATE));
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    sent
}
