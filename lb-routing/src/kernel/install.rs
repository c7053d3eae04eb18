//! The installer: carries out operations on the kernel's tables, a batch at a time.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use tokio::sync::mpsc;

use super::socket::Socket;
use super::{KernelError, encode, is_gone};
use crate::addresses::AddressOp;
use crate::ledger::Change;
use crate::plan::Op;

/// Messages in one datagram: their acknowledgements fit any receive buffer.
const DATAGRAM_MESSAGES: usize = 64;

/// What the installer is asked for; one at a time.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// On addresses: before the routes, which may lead by their networks.
    pub(crate) addresses: Vec<AddressOp>,
    /// On routes.
    pub(crate) ops: Vec<Op>,
    /// Neighbours that the kernel should look for.
    pub(crate) resolve: Vec<(u32, IpAddr)>,
}

/// What became of an operation.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) op: T,
    pub(crate) result: io::Result<()>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) addresses: Vec<Outcome<AddressOp>>,
    pub(crate) routes: Vec<Outcome<Op>>,
}

/// The installer.
pub(crate) struct Installer {
    socket: Socket,
    requests: mpsc::Receiver<Request>,
    outcomes: mpsc::Sender<Outcomes>,
}

impl Installer {
    pub(crate) fn new(
        requests: mpsc::Receiver<Request>,
        outcomes: mpsc::Sender<Outcomes>,
    ) -> Result<Self, KernelError> {
        let socket = Socket::open(0).map_err(KernelError::Open)?;
        Ok(Self { socket, requests, outcomes })
    }

    /// The id by which the kernel names our changes in its events.
    pub(crate) const fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Works until the router is gone.
    pub(crate) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let outcomes = Outcomes {
                addresses: self.changes(request.addresses, encode::address).await,
                routes: self.changes(request.ops, encode::op).await,
            };
            for neighbours in request.resolve.chunks(DATAGRAM_MESSAGES) {
                let messages =
                    neighbours.iter().map(|(link, address)| encode::resolve(*link, *address));
                for result in self.carry_out(messages.collect()).await {
                    if let Err(error) = result {
                        tracing::debug!(%error, "the kernel does not look for a neighbour");
                    }
                }
            }
            if self.outcomes.send(outcomes).await.is_err() {
                return;
            }
        }
    }

    async fn changes<K: Copy, V: Clone>(
        &mut self,
        changes: Vec<Change<K, V>>,
        encode: impl Fn(&Change<K, V>) -> (RouteNetlinkMessage, u16),
    ) -> Vec<Outcome<Change<K, V>>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for some in changes.chunks(DATAGRAM_MESSAGES) {
            let results = self.carry_out(some.iter().map(&encode).collect()).await;
            let pairs = some.iter().cloned().zip(results);
            outcomes.extend(pairs.map(|(op, result)| outcome(op, result)));
        }
        outcomes
    }

    async fn carry_out(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Vec<io::Result<()>> {
        let count = messages.len();
        match self.socket.requests(messages).await {
            Ok(results) => results,
            Err(error) => (0..count).map(|_| Err(copy(&error))).collect(),
        }
    }
}

/// What is to go and is not there has gone.
fn outcome<K, V>(op: Change<K, V>, result: io::Result<()>) -> Outcome<Change<K, V>> {
    let gone = matches!(op, Change::Delete(_));
    let result = match result {
        Err(error) if gone && is_gone(&error) => Ok(()),
        result => result,
    };
    Outcome { op, result }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
