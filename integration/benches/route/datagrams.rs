//! A flood of small datagrams, and how many of them arrive.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::netns::Netns;

/// Bytes of a datagram: 64 with the headers of UDP and IPv4.
const PAYLOAD: [u8; 36] = [0; 36];
/// Datagrams between two looks at the clock.
const BURST: usize = 64;

/// Counts what arrives in a node until this process ends.
pub(crate) struct Sink(Arc<AtomicU64>);

impl Sink {
    pub(crate) fn start(node: &Netns, port: u16) -> Result<Self> {
        let socket = node.within(|| UdpSocket::bind(("0.0.0.0", port)))??;
        let count = Arc::new(AtomicU64::new(0));
        let arrived = Arc::clone(&count);
        thread::spawn(move || {
            let mut datagram = [0; 128];
            while socket.recv(&mut datagram).is_ok() {
                arrived.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self(count))
    }

    /// Sends as fast as one thread can; how many a second arrived.
    pub(crate) fn flood(&self, from: &Netns, to: SocketAddr, during: Duration) -> Result<f64> {
        let socket = from.within(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        socket.connect(to)?;
        let before = self.0.load(Ordering::Relaxed);
        let start = Instant::now();
        while start.elapsed() < during {
            for _ in 0..BURST {
                // A full queue on the way is part of what is measured.
                let _dropped = socket.send(&PAYLOAD);
            }
        }
        let arrived = self.0.load(Ordering::Relaxed) - before;
        ensure!(arrived > 0, "no datagram arrived");
        Ok(arrived as f64 / start.elapsed().as_secs_f64())
    }
}
