//! A member that tells who came: HTTP, lines over TCP, and datagrams are answered with the peer's
//! address, and every peer is noted, those that only check it, too.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::process::LIMIT;

type Peers = Arc<Mutex<BTreeSet<IpAddr>>>;

pub struct Witness {
    pub addr: SocketAddr,
    peers: Peers,
}

impl Witness {
    /// On a free port of this address, by TCP and UDP.
    pub fn start(ip: &str) -> Witness {
        // A port that is free for both; somebody else may have it for one of them.
        let (listener, socket) = (0..20)
            .find_map(|_| {
                let listener = TcpListener::bind((ip, 0)).unwrap();
                let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
                Some((listener, socket))
            })
            .unwrap();
        let witness = Witness { addr: listener.local_addr().unwrap(), peers: Peers::default() };
        let peers = Arc::clone(&witness.peers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who has gone by reset already has no address.
                let Ok(peer) = stream.peer_addr() else { continue };
                peers.lock().unwrap().insert(peer.ip());
                std::thread::Builder::new()
                    .stack_size(64 << 10)
                    .spawn(move || answer(&stream, peer.ip()))
                    .unwrap();
            }
        });
        let peers = Arc::clone(&witness.peers);
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                peers.lock().unwrap().insert(from.ip());
                let _asker_is_gone = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
        witness
    }

    /// Who has come since the last time.
    pub fn take_peers(&self) -> BTreeSet<String> {
        let peers = std::mem::take(&mut *self.peers.lock().unwrap());
        peers.into_iter().map(|ip| ip.to_string()).collect()
    }
}

fn answer(stream: &TcpStream, peer: IpAddr) {
    let (mut reader, mut out, mut line) = (BufReader::new(stream), stream, String::new());
    let peer = peer.to_string();
    loop {
        line.clear();
        let Ok(1..) = reader.read_line(&mut line) else { return };
        let http = line.contains(" HTTP/1.1");
        while http && line != "\r\n" {
            line.clear();
            let Ok(1..) = reader.read_line(&mut line) else { return };
        }
        let reply = match http {
            true => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{peer}", peer.len()),
            false => format!("{peer}\n"),
        };
        if out.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

/// A connection by which a member tells whom it sees.
pub struct Held(BufReader<TcpStream>);

impl Held {
    /// `None`: nobody serves it.
    pub fn open(to: SocketAddr) -> Option<Held> {
        let stream = TcpStream::connect_timeout(&to, LIMIT).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut held = Held(BufReader::new(stream));
        held.ask().map(|_| held)
    }

    /// Whom the member sees; `None` when the connection has ended.
    pub fn ask(&mut self) -> Option<String> {
        self.0.get_mut().write_all(b"who\n").ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|len| *len > 0)?;
        Some(line.trim_end().to_owned())
    }
}

/// A client of UDP, with this address.
pub struct Asker(UdpSocket);

impl Asker {
    pub fn new(own: &str, to: SocketAddr) -> Asker {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Asker(socket)
    }

    /// Whom the member sees, if an answer comes to one of `tries`.
    pub fn ask(&self, tries: usize) -> Option<String> {
        let mut buffer = [0; 256];
        (0..tries).find_map(|_| {
            self.0.send(b"who").ok()?;
            let len = self.0.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
        })
    }
}
