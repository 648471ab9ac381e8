//! A member of HTTP whose mood can be changed while it runs: it answers well, or breaks one rule of
//! good members. Owns the bytes of each bad habit. Used by the tests of bad members and the drills.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{LIMIT, pass_time, until};

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200 with four bytes.
    Good,
    /// As [`Mood::Good`], so much later.
    Late(Duration),
    /// Nothing comes, and the connection stays open.
    Mute,
    /// The first bytes of a good answer come, and nothing more.
    MuteInHead,
    /// The head and half of the body come, and nothing more.
    MuteInBody,
    /// A good answer, one byte in each such time.
    Drip(Duration),
    /// A status line, and header fields for as long as somebody takes them.
    EndlessHead,
    /// RST before the first byte of the answer.
    ResetAtOnce,
    /// RST within the head.
    ResetInHead,
    /// RST within a body of known length.
    ResetInBody,
    /// FIN within a body of known length.
    CloseInBody,
    /// FIN within a chunked body, between two chunks.
    CloseInChunks,
    /// Greets as an SSH server does, and says nothing more.
    Ssh,
    /// Says what a server of HTTP/2 says first (SETTINGS), and nothing more.
    Http2,
    /// Answers as a TLS server answers clear text: an alert, and the end.
    TlsAlert,
}

/// A running member; its thread ends with the process.
pub struct Moody {
    pub addr: SocketAddr,
    /// Connections that are open.
    pub open: Arc<AtomicU64>,
    mood: Arc<Mutex<Mood>>,
}

/// Counts a connection for as long as it is there.
struct Open(Arc<AtomicU64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Moody {
    /// On a free port of 127.0.0.1.
    pub fn start(mood: Mood) -> Moody {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let member = Moody { addr, open: Arc::default(), mood: Arc::new(Mutex::new(mood)) };
        let (open, mood) = (Arc::clone(&member.open), Arc::clone(&member.mood));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                open.fetch_add(1, Relaxed);
                let (open, mood) = (Open(Arc::clone(&open)), Arc::clone(&mood));
                std::thread::spawn(move || {
                    let _gone = serve(stream, &mood);
                    drop(open);
                });
            }
        });
        member
    }

    /// How it answers from now on.
    pub fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
/// Head and half a body of known length.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
const CHUNK: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf.\r\n";
/// An empty SETTINGS frame (RFC 9113, 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A fatal alert, unexpected_message (RFC 8446, 6.2).
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

fn serve(stream: TcpStream, mood: &Mutex<Mood>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let at_first = *mood.lock().unwrap();
    match at_first {
        Mood::Ssh => silence(&mut reader, b"SSH-2.0-OpenSSH_9.9\r\n")?,
        Mood::Http2 => silence(&mut reader, SETTINGS)?,
        _ => true,
    };
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let mood = *mood.lock().unwrap();
        if !answer(&mut reader, mood)? {
            return Ok(());
        }
    }
}

/// Answers one request; whether the connection goes on.
fn answer(reader: &mut BufReader<TcpStream>, mood: Mood) -> Result<bool> {
    let out = reader.get_mut();
    match mood {
        Mood::Good => out.write_all(GOOD)?,
        Mood::Late(time) => {
            pass_time(time);
            out.write_all(GOOD)?;
        }
        Mood::Drip(time) => drip(out, time)?,
        Mood::Mute => return silence(reader, b""),
        Mood::MuteInHead => return silence(reader, &GOOD[..20]),
        Mood::MuteInBody => return silence(reader, HALF),
        Mood::EndlessHead => endless(out)?,
        Mood::ResetAtOnce => return reset(reader, b""),
        Mood::ResetInHead => return reset(reader, &GOOD[..20]),
        Mood::ResetInBody => return reset(reader, HALF),
        Mood::CloseInBody => return last(out, HALF),
        Mood::CloseInChunks => return last(out, CHUNK),
        // They have greeted, which was all; or it became so since.
        Mood::Ssh | Mood::Http2 => return Ok(false),
        Mood::TlsAlert => return last(out, ALERT),
    }
    Ok(true)
}

/// Sends this, then holds the connection until the other side ends it.
fn silence(reader: &mut BufReader<TcpStream>, bytes: &[u8]) -> Result<bool> {
    reader.get_mut().write_all(bytes)?;
    reader.read_to_end(&mut Vec::new())?;
    Ok(false)
}

/// Sends this, and RST once it has arrived: an RST drops what waits to be read on the other side.
fn reset(reader: &mut BufReader<TcpStream>, bytes: &[u8]) -> Result<bool> {
    reader.get_mut().write_all(bytes)?;
    if !bytes.is_empty() {
        pass_time(Duration::from_millis(50));
    }
    socket2::SockRef::from(reader.get_ref()).set_linger(Some(Duration::ZERO))?;
    Ok(false)
}

fn last(out: &mut TcpStream, bytes: &[u8]) -> Result<bool> {
    out.write_all(bytes)?;
    Ok(false)
}

fn drip(out: &mut TcpStream, time: Duration) -> Result<()> {
    for byte in GOOD {
        out.write_all(&[*byte])?;
        pass_time(time);
    }
    Ok(())
}

fn endless(out: &mut TcpStream) -> Result<()> {
    out.set_write_timeout(Some(LIMIT))?;
    out.write_all(b"HTTP/1.1 200 OK\r\n")?;
    for n in 0_u64.. {
        out.write_all(format!("X-More-{n}: and so on\r\n").as_bytes())?;
    }
    Ok(())
}

/// An address that answers no SYN: a full accept queue of length 0, for as long as nobody accepts.
pub struct BlackHole {
    pub addr: SocketAddr,
    full: TcpListener,
    own: Vec<TcpStream>,
}

impl BlackHole {
    pub fn new() -> BlackHole {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain, kind, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let full = TcpListener::from(socket);
        let addr = full.local_addr().unwrap();
        let fill = |_| TcpStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
        let own: Vec<TcpStream> = (0..4).map_while(fill).collect();
        assert!(own.len() < 4, "its queue does not fill");
        BlackHole { addr, full, own }
    }

    /// The next connection of somebody else's; from now on it answers, once a SYN is sent again.
    pub fn accept(&self) -> TcpStream {
        socket2::SockRef::from(&self.full).listen(16).unwrap();
        self.full.set_nonblocking(true).unwrap();
        let is_own = |peer| self.own.iter().any(|own| own.local_addr().unwrap() == peer);
        let mut found = None;
        until("a connection", || {
            found = self.full.accept().ok().filter(|(_, peer)| !is_own(*peer));
            found.is_some()
        });
        let (stream, _) = found.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}
