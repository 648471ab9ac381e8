//! TCP listeners end to end: the real program between scripted clients and members on threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../process/mod.rs"]
mod process;

mod addresses;
mod change;
mod end;
mod first;
mod pressure;
mod programs;
mod relay;
mod sticky;
mod told;
mod weights;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use socket2::{Domain, SockRef, Socket, Type};

use process::{LIMIT, RUN_DIR, Server, address_after, until};

/// A file of TCP listeners and pools. Addresses of balancers are 127.0.0.1 unless given.
#[derive(Default)]
pub struct Plan {
    text: String,
}

impl Plan {
    pub fn new(timeout: u64) -> Plan {
        Plan::on(timeout, "\"127.0.0.1\"")
    }

    pub fn on(timeout: u64, vips: &str) -> Plan {
        let text = format!(
            "[runtime]\ncores = \"auto\"\nshutdown_timeout = {timeout}\nrun_dir = \"{RUN_DIR}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [[loadbalancer]]\nname = \"front\"\nvip_address = {vips}\n"
        );
        Plan { text }
    }

    pub fn more(mut self, lines: &str) -> Plan {
        self.text.push_str(lines);
        self.text.push('\n');
        self
    }

    pub fn listener(self, name: &str, port: u16, pool: &str, lines: &str) -> Plan {
        self.listener_of("front", name, port, pool, lines)
    }

    pub fn listener_of(
        self,
        balancer: &str,
        name: &str,
        port: u16,
        pool: &str,
        lines: &str,
    ) -> Plan {
        self.more(&format!(
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"{balancer}\"\nprotocol = \"TCP\"\n\
             protocol_port = {port}\ndefault_pool = \"{pool}\"\n{lines}"
        ))
    }

    pub fn pool(mut self, name: &str, lines: &str, members: &[(SocketAddr, u8)]) -> Plan {
        self = self.more(&format!("[[pool]]\nname = \"{name}\"\nprotocol = \"TCP\"\n{lines}"));
        for (addr, weight) in members {
            writeln!(
                self.text,
                "[[pool.members]]\naddress = \"{}\"\nprotocol_port = {}\nweight = {weight}",
                addr.ip(),
                addr.port()
            )
            .unwrap();
        }
        self
    }

    /// With a log of the connections that have ended.
    pub fn logged(self) -> Plan {
        self.more(&format!("[connection_log]\npath = \"{RUN_DIR}.log\""))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn start(&self) -> Server {
        Server::start(&self.text)
    }
}

/// Where a listener can be reached first.
pub fn address(server: &Server, name: &str) -> SocketAddr {
    address_after(&server.ready, &format!("{name} tcp://"))
}

/// A member that a test plays itself: it gets the connections.
pub struct Member {
    pub addr: SocketAddr,
    came: Receiver<TcpStream>,
}

impl Member {
    pub fn start() -> Member {
        Member::at("127.0.0.1:0".parse().unwrap())
    }

    pub fn at(addr: SocketAddr) -> Member {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, came) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Member { addr, came }
    }

    /// The next connection.
    pub fn accept(&self) -> TcpStream {
        self.came.recv_timeout(LIMIT).unwrap()
    }

    /// Has no connection come (that was not accepted)?
    pub fn is_quiet(&self) -> bool {
        self.came.try_recv().is_err()
    }
}

/// A member that greets each connection with its name, and sends back what comes.
pub fn echo(name: &'static str, addr: &str) -> SocketAddr {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                stream.write_all(name.as_bytes()).and_then(|()| {
                    std::io::copy(&mut reader, &mut stream)?;
                    stream.shutdown(std::net::Shutdown::Write)
                })
            });
        }
    });
    addr
}

/// An address where nobody listens, nor will: the port stays taken.
pub fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    addr
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A connection from this address of loopback.
pub fn connect_from(source: &str, addr: SocketAddr) -> TcpStream {
    try_connect_from(source, addr).unwrap()
}

pub fn try_connect_from(source: &str, addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    let source: SocketAddr = source.parse().unwrap();
    socket.bind(&source.into())?;
    socket.connect_timeout(&addr.into(), LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// The next `N` bytes as text.
pub fn read<const N: usize>(stream: &mut TcpStream) -> String {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What is said on one side arrives at the other, both ways.
pub fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    one.write_all(b"ping").unwrap();
    assert_eq!(read::<4>(other), "ping");
    other.write_all(b"pong").unwrap();
    assert_eq!(read::<4>(one), "pong");
}

/// The connection ends by RST.
pub fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 16]).expect_err("the connection should be reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// A connection to this address is reset, perhaps before the client sees that it had one.
pub fn assert_refused(addr: SocketAddr) {
    let ended = TcpStream::connect_timeout(&addr, LIMIT).and_then(|mut stream| {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read(&mut [0; 16])
    });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// The lines of the connection log ([`Plan::logged`]) once there are `n`.
pub fn log(server: &Server, n: usize) -> Vec<serde_json::Value> {
    let path = server.file.run_dir().with_file_name("run.log");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    until("lines of the connection log", || text().lines().count() >= n);
    let lines: Vec<_> = text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), n);
    lines
}

/// How many connections of listener `web` have ended like this.
pub fn ended(server: &Server, how: &str) -> f64 {
    server.counted(&format!("weir_ended_connections_total{{listener=\"web\",how=\"{how}\"}}"))
}
