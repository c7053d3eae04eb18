//! A server, and clients that keep it busy. Threads that block, on both sides: the same for everybody who is measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration::netns::Netns;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Connections at a time.
const CLIENTS: usize = 16;
/// Threads of the server: those of the clients, and some that health checks may take.
const WORKERS: usize = CLIENTS + 8;
/// How long one reading or connecting may take.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: usize = 64;
const ANSWER: usize = 128;
/// A piece of a stream.
const PIECE: usize = 128 << 10;

/// What a connection is for: the first byte of its first request.
const ONCE: u8 = b'1';
const KEPT: u8 = b'k';
const STREAM: u8 = b's';

/// What clients saw in one round.
pub(crate) struct Requests {
    pub(crate) per_second: f64,
    /// Microseconds that 99 of 100 requests stay below.
    pub(crate) p99: f64,
}

/// Serves in a node until this process ends.
pub(crate) fn serve(node: &Netns, port: u16) -> Result<()> {
    let listener = node.within(|| TcpListener::bind(("0.0.0.0", port)))??;
    for _ in 0..WORKERS {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            loop {
                if let Ok((connection, _)) = listener.accept() {
                    // One that breaks is the client's to report.
                    let _ = answer(connection);
                }
            }
        });
    }
    Ok(())
}

fn answer(mut connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; REQUEST];
    connection.read_exact(&mut request)?;
    match request[0] {
        ONCE => connection.write_all(&[0; ANSWER])?,
        KEPT => loop {
            connection.write_all(&[0; ANSWER])?;
            connection.read_exact(&mut request)?;
        },
        // In a thread of its own, since it stays where it is.
        _ => thread::scope(|scope| {
            let end = scope.spawn(|| take_in(connection)).join();
            end.unwrap_or_else(|_| Err(anyhow::anyhow!("the stream's end panicked")))
        })?,
    }
    Ok(())
}

fn take_in(mut connection: TcpStream) -> Result<()> {
    stay_on(Cpu::Last)?;
    let mut piece = vec![0; PIECE];
    let mut total = 0_u64;
    loop {
        match connection.read(&mut piece)? {
            0 => break,
            len => total += len as u64,
        }
    }
    Ok(connection.write_all(&total.to_be_bytes())?)
}

enum Cpu {
    First,
    Last,
}

/// Both ends of a stream have a processor each, whoever is between them: where the scheduler puts one of them makes more of a
/// difference than anybody who is measured.
fn stay_on(cpu: Cpu) -> Result<()> {
    let own = Pid::from_raw(0);
    let all = sched_getaffinity(own)?;
    let mut there = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    let one = match cpu {
        Cpu::First => there.next(),
        Cpu::Last => there.next_back(),
    };
    let mut set = CpuSet::new();
    set.set(one.context("no processor is allowed")?)?;
    Ok(sched_setaffinity(own, &set)?)
}

/// One stream to the server, each end on a processor of its own; Gbit/s of what arrived.
pub(crate) fn stream(from: &Netns, to: SocketAddr, during: Duration) -> Result<f64> {
    from.within(|| {
        stay_on(Cpu::First)?;
        let mut connection = connect(to)?;
        connection.write_all(&[STREAM; REQUEST])?;
        let piece = vec![0; PIECE];
        let start = Instant::now();
        let mut sent = 0_u64;
        while start.elapsed() < during {
            connection.write_all(&piece)?;
            sent += piece.len() as u64;
        }
        connection.shutdown(std::net::Shutdown::Write)?;
        let mut total = [0; 8];
        connection.read_exact(&mut total).context("the server did not say what came")?;
        let seconds = start.elapsed().as_secs_f64();
        let total = u64::from_be_bytes(total);
        ensure!(total == sent, "{total} bytes came of {sent}");
        Ok(total as f64 * 8.0 / seconds / 1e9)
    })?
}

/// Requests one after the other from each of the clients, all on a connection of its own.
pub(crate) fn new_connections(from: &Netns, to: SocketAddr, during: Duration) -> Result<Requests> {
    all_clients(from, during, || {
        Ok(move || {
            let mut connection = connect(to)?;
            connection.write_all(&[ONCE; REQUEST])?;
            let mut answer = [0; ANSWER];
            connection.read_exact(&mut answer)?;
            // The server closes first, so that the client's port is free at once.
            ensure!(connection.read(&mut answer)? == 0, "more came than was asked for");
            Ok(())
        })
    })
}

/// The same on one connection for each client.
pub(crate) fn kept_connections(from: &Netns, to: SocketAddr, during: Duration) -> Result<Requests> {
    all_clients(from, during, || {
        let mut connection = connect(to)?;
        Ok(move || {
            connection.write_all(&[KEPT; REQUEST])?;
            Ok(connection.read_exact(&mut [0; ANSWER])?)
        })
    })
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&to, PATIENCE).context("cannot connect")?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Every client makes requests until the time is over; the first one that fails is the error.
fn all_clients<F: FnMut() -> Result<()>>(
    from: &Netns,
    during: Duration,
    client: impl Fn() -> Result<F> + Sync,
) -> Result<Requests> {
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let times = from.within(|| {
        thread::scope(|scope| {
            let run = || -> Result<Vec<u32>> {
                let mut times = Vec::new();
                let mut request = client()?;
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    request()?;
                    times.push(start.elapsed().as_micros() as u32);
                }
                Ok(times)
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(run)).collect();
            thread::sleep(during);
            over.store(true, Ordering::Relaxed);
            let mut all = Vec::new();
            for client in clients {
                all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
            }
            Ok::<_, anyhow::Error>(all)
        })
    })??;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(times.len() >= 100, "only {} requests were answered", times.len());
    let mut times = times;
    times.sort_unstable();
    let p99 = f64::from(times[times.len() * 99 / 100]);
    Ok(Requests { per_second: times.len() as f64 / seconds, p99 })
}
