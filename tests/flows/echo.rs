//! Members that serve TCP and UDP on the same port, and clients that say something and hear it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::process::LIMIT;

/// A member that sends back what comes; in front of a datagram it puts whom it saw.
pub fn member() -> SocketAddr {
    // A port that is free for both; somebody else may have it for one of them.
    let (listener, socket) = (0..20)
        .find_map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
            Some((listener, socket))
        })
        .unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut buf = [0; 4_096];
                    while let Ok(len @ 1..) = stream.read(&mut buf) {
                        if stream.write_all(&buf[..len]).is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        }
    });
    std::thread::spawn(move || {
        let mut buf = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let mut answer = format!("{} {from} ", addr.port()).into_bytes();
            answer.extend_from_slice(&buf[..len]);
            let _asker_is_gone = socket.send_to(&answer, from);
        }
    });
    addr
}

/// A TCP connection.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Says something on a connection and hears it.
pub fn talk(stream: &mut TcpStream, words: &[u8]) -> std::io::Result<()> {
    stream.write_all(words)?;
    let mut back = vec![0; words.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, words);
    Ok(())
}

/// A UDP socket that hears nobody else.
pub fn socket(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(addr).unwrap();
    socket
}

/// Asks by one datagram: which member answered, and whom it saw.
pub fn ask(socket: &UdpSocket, words: &str) -> std::io::Result<String> {
    socket.send(words.as_bytes())?;
    let mut buf = [0; 2_048];
    let len = socket.recv(&mut buf)?;
    let text = std::str::from_utf8(&buf[..len]).unwrap();
    let (home, said) = text.rsplit_once(' ').unwrap();
    assert_eq!(said, words, "an answer to something else");
    Ok(home.to_owned())
}

/// A client over either protocol: one connection, or one flow.
pub enum Client {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Client {
    /// At this address of its own. A refusal may be seen here already.
    pub fn from(ip: &str, scheme: &str, to: SocketAddr) -> std::io::Result<Client> {
        let from = SocketAddr::new(ip.parse().unwrap(), 0);
        let kind = if scheme == "tcp" { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), LIMIT)?;
        Ok(match scheme {
            "tcp" => Client::Tcp(socket.into()),
            _ => Client::Udp(socket.into()),
        })
    }

    pub fn port(&self) -> u16 {
        let addr = match self {
            Client::Tcp(stream) => stream.local_addr(),
            Client::Udp(socket) => socket.local_addr(),
        };
        addr.unwrap().port()
    }

    /// Says something and hears it.
    pub fn ask(&mut self, words: &str) -> std::io::Result<()> {
        match self {
            Client::Tcp(stream) => talk(stream, words.as_bytes()),
            Client::Udp(socket) => ask(socket, words).map(drop),
        }
    }
}
