//! A member that can be killed and comes back on its address, and that tells probes from requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{LIMIT, until};

/// Not 127.0.0.1, from where all connections on loopback come: so nobody takes its port while it
/// is dead.
const ADDRESS: [u8; 4] = [127, 0, 0, 77];

/// Connections that can be cut. Kept ones of tests are far fewer, and young.
const KEPT: usize = 1_000;

/// Answers 200 with its name, and 404 to whatever begins with `/missing`.
pub struct Mortal {
    pub addr: SocketAddr,
    pub name: &'static str,
    /// Requests of health checks.
    pub probes: Arc<AtomicU64>,
    /// All others.
    pub requests: Arc<AtomicU64>,
    life: Option<Life>,
}

/// From birth, or rebirth, to death.
struct Life {
    over: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Mortal {
    pub fn start(name: &'static str) -> Mortal {
        let listener = TcpListener::bind(SocketAddr::from((ADDRESS, 0))).unwrap();
        let addr = listener.local_addr().unwrap();
        let (probes, requests) = (Arc::default(), Arc::default());
        let mut member = Mortal { addr, name, probes, requests, life: None };
        member.live(listener);
        member
    }

    /// Ends as a killed process does: nobody listens, all connections are gone.
    pub fn kill(&mut self) {
        let Life { over, streams, accepting } = self.life.take().unwrap();
        over.store(true, Relaxed);
        // Wakes the accepting thread.
        drop(TcpStream::connect_timeout(&self.addr, LIMIT));
        accepting.join().unwrap();
        for stream in streams.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Is there again, on the same address.
    pub fn revive(&mut self) {
        let mut listener = None;
        until("the member's own port", || {
            listener = TcpListener::bind(self.addr).ok();
            listener.is_some()
        });
        self.live(listener.unwrap());
    }

    fn live(&mut self, listener: TcpListener) {
        let (over, streams) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ended, open) = (Arc::clone(&over), Arc::clone(&streams));
        let (name, probes, requests) =
            (self.name, Arc::clone(&self.probes), Arc::clone(&self.requests));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Relaxed) {
                    return;
                }
                keep(&open, &stream);
                let (probes, requests) = (Arc::clone(&probes), Arc::clone(&requests));
                std::thread::spawn(move || serve(&stream, name, &probes, &requests));
            }
        });
        self.life = Some(Life { over, streams, accepting });
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if self.life.is_some() {
            self.kill();
        }
    }
}

/// Remembers a stream for the end; of very many the oldest are forgotten, which are over by then.
fn keep(open: &Mutex<Vec<TcpStream>>, stream: &TcpStream) {
    let mut open = open.lock().unwrap();
    if open.len() >= KEPT {
        open.drain(..KEPT / 2);
    }
    open.push(stream.try_clone().unwrap());
}

fn serve(stream: &TcpStream, name: &str, probes: &AtomicU64, requests: &AtomicU64) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        head.clear();
        while !head.ends_with("\r\n\r\n") {
            if !reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                return;
            }
        }
        let probe = head.contains("User-Agent: weir-health");
        let count = if probe { probes } else { requests };
        count.fetch_add(1, Relaxed);
        let missing = head.split(' ').nth(1).is_some_and(|path| path.starts_with("/missing"));
        let status = if missing { "404 Not Found" } else { "200 OK" };
        let length = name.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}");
        let mut out = stream;
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
