//! Large bodies on raw sockets: a seeded pattern, written and compared on the fly, in either
//! framing; and a member on threads that sends and checks such bodies.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::{SockRef, Socket};

use crate::Dice;
use crate::process::Gate;

/// Bytes of one block: a prime, so that no buffer size of anybody divides it.
const BLOCK: usize = 1_048_573;
/// Bytes read or written at a time.
const PIECE: usize = 256 << 10;
/// Largest chunk that is written.
const MOST_CHUNK: u64 = 200_000;
/// The largest pauses of either side: longer than any of these tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// An endless stream of bytes: one random block after another, each beginning with its number, so
/// that no piece can be missing, doubled or in another's place.
pub struct Pattern {
    block: Vec<u8>,
    at: u64,
}

impl Pattern {
    pub fn new(seed: u64) -> Pattern {
        let mut dice = Dice::new(seed);
        let mut block = vec![0; BLOCK];
        for piece in block.chunks_mut(8) {
            let bytes = dice.roll().to_le_bytes();
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
        Pattern { block, at: 0 }
    }

    /// The next bytes, at least one and at most `most`.
    fn next(&mut self, most: usize) -> &[u8] {
        let offset = (self.at % BLOCK as u64) as usize;
        let number = self.at / BLOCK as u64;
        self.block[..8].copy_from_slice(&number.to_le_bytes());
        let piece = &self.block[offset..(offset + most).min(BLOCK)];
        self.at += piece.len() as u64;
        piece
    }

    /// Compares `data` with the stream's next bytes.
    pub fn check(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let start = self.at;
            let expected = self.next(data.len());
            let (now, rest) = data.split_at(expected.len());
            if now != expected {
                return Err(Error::other(format!("wrong bytes at or behind {start}")));
            }
            data = rest;
        }
        Ok(())
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
}

impl Framing {
    /// The header line that announces `len` bytes.
    pub fn header(self, len: u64) -> String {
        match self {
            Framing::Length => format!("Content-Length: {len}\r\n"),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".into(),
        }
    }
}

/// Writes `len` bytes of the pattern; counts into `written` as it goes.
pub fn write_body(
    mut out: impl Write,
    framing: Framing,
    len: u64,
    pattern: &mut Pattern,
    written: &AtomicU64,
) -> Result<()> {
    let mut dice = Dice::new(len);
    let mut left = len;
    while left > 0 {
        let chunk = match framing {
            Framing::Length => left,
            Framing::Chunked => left.min(1 + dice.below(MOST_CHUNK)),
        };
        if framing == Framing::Chunked {
            write!(out, "{chunk:x}\r\n")?;
        }
        let mut due = chunk;
        while due > 0 {
            let piece = pattern.next(due.min(PIECE as u64) as usize);
            out.write_all(piece)?;
            due -= piece.len() as u64;
            written.fetch_add(piece.len() as u64, Relaxed);
        }
        if framing == Framing::Chunked {
            out.write_all(b"\r\n")?;
        }
        left -= chunk;
    }
    if framing == Framing::Chunked {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.flush()
}

/// One end of a connection.
pub struct Wire {
    reader: BufReader<TcpStream>,
}

/// A head, and how its body is delimited.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    pub text: String,
    length: Option<u64>,
    chunked: bool,
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> Wire {
        Wire::over(TcpStream::connect(addr).unwrap())
    }

    pub fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { reader: BufReader::with_capacity(PIECE, stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn send(&self, text: &str) -> Result<()> {
        self.stream().write_all(text.as_bytes())
    }

    /// The next head; `None` when the peer has ended.
    pub fn head(&mut self) -> Result<Option<Head>> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut text)? == 0 {
                return if text.is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|l| l.split_once(':'));
            fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
        };
        let length = field("content-length").map(|v| v.parse().unwrap());
        let chunked = field("transfer-encoding").is_some();
        let first = text.lines().next().unwrap_or_default().to_owned();
        Ok(Some(Head { first, text, length, chunked }))
    }

    /// Reads the body that belongs to `head`, piece by piece, into `take`; its length.
    pub fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        if !head.chunked {
            let len = head.length.unwrap_or(0);
            self.pieces(len, &mut take)?;
            return Ok(len);
        }
        let mut all = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16).map_err(|_| Error::other(line))?;
            self.pieces(size, &mut take)?;
            all += size;
            let mut end = [0; 2];
            self.reader.read_exact(&mut end)?;
            if end != *b"\r\n" {
                return Err(Error::other("a chunk does not end"));
            }
            if size == 0 {
                return Ok(all);
            }
        }
    }

    fn pieces(&mut self, mut left: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while left > 0 {
            let data = self.reader.fill_buf()?;
            let n = data.len().min(left.try_into().unwrap_or(usize::MAX));
            if n == 0 {
                return Err(cut());
            }
            take(&data[..n])?;
            self.reader.consume(n);
            left -= n as u64;
        }
        Ok(())
    }

    /// The body as text; for small ones.
    pub fn text(&mut self, head: &Head) -> Result<String> {
        let mut body = Vec::new();
        self.body(head, |data| {
            body.extend_from_slice(data);
            Ok(())
        })?;
        String::from_utf8(body).map_err(Error::other)
    }
}

fn cut() -> Error {
    std::io::ErrorKind::UnexpectedEof.into()
}

/// A member on threads. `GET /length/N` and `GET /chunked/N` answer N bytes of the pattern; a
/// request with a body is compared with it and answered "N bytes"; anything else with "hello".
pub struct PatternMember {
    pub addr: SocketAddr,
    /// Body bytes that the member's sockets have taken.
    pub written: Arc<AtomicU64>,
    /// While shut, no body is read.
    pub reads: Arc<Gate>,
}

/// The seed of all bodies that this member sends and expects.
pub const SEED: u64 = 0x5EED;

impl PatternMember {
    pub fn start() -> PatternMember {
        PatternMember::new(true, None)
    }

    /// One that reads no body before its gate opens; `room` bounds its receive buffers.
    pub fn new(reads: bool, room: Option<usize>) -> PatternMember {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(room) = room {
            socket.set_recv_buffer_size(room).unwrap();
        }
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let member = PatternMember {
            addr: listener.local_addr().unwrap(),
            written: Arc::default(),
            reads: Arc::new(Gate::new(reads)),
        };
        let (written, gate) = (member.written.clone(), member.reads.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (written, gate) = (written.clone(), gate.clone());
                std::thread::spawn(move || {
                    let mut wire = Wire::over(stream);
                    // A balancer that goes away in the middle is for the test to judge.
                    while let Ok(true) = serve(&mut wire, &written, &gate) {}
                    let _gone = wire.stream().shutdown(Shutdown::Both);
                });
            }
        });
        member
    }
}

/// Answers one request; false at the end of the connection.
fn serve(wire: &mut Wire, written: &AtomicU64, reads: &Gate) -> Result<bool> {
    let Some(head) = wire.head()? else { return Ok(false) };
    let target = head.first.split(' ').nth(1).unwrap_or_default();
    let wanted = [("/length/", Framing::Length), ("/chunked/", Framing::Chunked)]
        .into_iter()
        .find_map(|(path, framing)| Some((framing, target.strip_prefix(path)?.parse().ok()?)));
    if let Some((framing, len)) = wanted {
        wire.send(&format!("HTTP/1.1 200 OK\r\n{}\r\n", framing.header(len)))?;
        write_body(wire.stream(), framing, len, &mut Pattern::new(SEED), written)?;
        return Ok(true);
    }
    let answer = if head.chunked || head.length.is_some() {
        if head.text.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n") {
            wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        reads.pass();
        let mut pattern = Pattern::new(SEED);
        format!("{} bytes", wire.body(&head, |data| pattern.check(data))?)
    } else {
        "hello".into()
    };
    wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()))?;
    Ok(true)
}

/// A connection whose receive buffer stays small, so that the sender feels soon that nobody reads.
pub fn connect_narrow(addr: SocketAddr, room: usize) -> TcpStream {
    let domain = socket2::Domain::for_address(addr);
    let socket = Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(room).unwrap();
    socket.connect(&addr.into()).unwrap();
    TcpStream::from(socket)
}

/// The next close of `stream` sends RST.
pub fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}
