//! A TCP proxy that can fail as networks do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::error::ServiceError;

/// How often a pump looks whether the network is still there.
const TICK: Duration = Duration::from_millis(20);

const OPEN: u8 = 0;
const HUNG: u8 = 1;
const CUT: u8 = 2;
const GONE: u8 = 3;

#[derive(Default)]
struct State {
    mode: AtomicU8,
    /// Counts the cuts: a connection of before one ends even if the network is back at once.
    cuts: AtomicU64,
    bytes: AtomicU64,
    to: AtomicU16,
}

/// Forwards one loopback port to another until it is told not to. Gone on drop.
pub struct Proxy {
    state: Arc<State>,
    port: u16,
}

impl Proxy {
    /// Forwards a free port to `to` on 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(to: u16) -> Result<Self, ServiceError> {
        let failed = || ServiceError::io("the proxy's port");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        let port = listener.local_addr().map_err(failed())?.port();
        listener.set_nonblocking(true).map_err(failed())?;
        let state = Arc::new(State { to: AtomicU16::new(to), ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { state, port })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that it forwards to.
    pub fn to(&self) -> u16 {
        self.state.to.load(SeqCst)
    }

    /// How many bytes went through, both ways.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(SeqCst)
    }

    /// Ends every connection and takes no new one.
    pub fn cut(&self) {
        self.state.mode.store(CUT, SeqCst);
        self.state.cuts.fetch_add(1, SeqCst);
    }

    /// Nothing goes through any more, and nobody is told.
    pub fn hang(&self) {
        self.state.mode.store(HUNG, SeqCst);
    }

    /// Forwards to another port from now on, and ends the connections to the one before.
    pub fn point_to(&self, to: u16) {
        self.state.to.store(to, SeqCst);
        self.state.cuts.fetch_add(1, SeqCst);
    }

    /// All is well again; what hung goes on.
    pub fn restore(&self) {
        self.state.mode.store(OPEN, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.mode.store(GONE, SeqCst);
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy(127.0.0.1:{})", self.port)
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    loop {
        let mode = state.mode.load(SeqCst);
        if mode == GONE {
            return;
        }
        match listener.accept() {
            // Dropped: the client sees its connection end.
            Ok(_) if mode == CUT => {}
            Ok((client, _)) => {
                let to = state.to.load(SeqCst);
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
                if let Ok(server) = TcpStream::connect(address) {
                    let _ = join(client, server, state);
                }
            }
            Err(_) => thread::sleep(TICK / 4),
        }
    }
}

fn join(client: TcpStream, server: TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    let born = state.cuts.load(SeqCst);
    for stream in [&client, &server] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
    }
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    let (there, back) = (Arc::clone(state), Arc::clone(state));
    thread::spawn(move || pump(client, server, &there, born));
    thread::spawn(move || pump(back_from, back_to, &back, born));
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, born: u64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mode = state.mode.load(SeqCst);
        if mode == GONE || state.cuts.load(SeqCst) != born {
            break;
        }
        if mode == HUNG {
            thread::sleep(TICK);
            continue;
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        // What was read when the network hung waits here.
        while state.mode.load(SeqCst) == HUNG {
            thread::sleep(TICK);
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        state.bytes.fetch_add(read as u64, SeqCst);
        if state.cuts.load(SeqCst) != born || to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
