//! Bodies far larger than any buffer, byte for byte, and peers that stop reading: memory stays
//! bounded, and nobody else waits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use weir_core::time::clock;

use crate::count;
use crate::process::{LIMIT, Server, config, get, until};
use crate::watch::{RESIDENT_MOST, resident_peak};

/// A body's bytes: a block of a length that divides nothing, over and over.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Pattern {
        let byte = |n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8;
        Pattern((0..1_048_573).map(byte).collect())
    }

    /// The bytes from `at` on, at least one and at most `most`.
    fn at(&self, at: u64, most: u64) -> &[u8] {
        let start = (at % self.0.len() as u64) as usize;
        let len = (self.0.len() - start).min(usize::try_from(most).unwrap());
        &self.0[start..start + len]
    }

    /// True when `bytes` are those from `at` on.
    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        let mut done = 0;
        while done < bytes.len() {
            let due = self.at(at + done as u64, (bytes.len() - done) as u64);
            if &bytes[done..done + due.len()] != due {
                return false;
            }
            done += due.len();
        }
        true
    }

    /// Writes `len` bytes, plain or in chunks.
    fn write(&self, out: &mut impl Write, len: u64, chunked: bool) -> std::io::Result<()> {
        let mut sent = 0;
        while sent < len {
            let piece = self.at(sent, (len - sent).min(77_777));
            if chunked {
                write!(out, "{:x}\r\n", piece.len())?;
            }
            out.write_all(piece)?;
            if chunked {
                out.write_all(b"\r\n")?;
            }
            sent += piece.len() as u64;
        }
        if chunked { out.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    /// Reads a body to its end and checks every byte; its length.
    fn check(&self, from: &mut impl BufRead, head: &str) -> std::io::Result<u64> {
        let head = head.to_ascii_lowercase();
        let mut got = 0;
        if !head.contains("transfer-encoding: chunked") {
            let len = head.split("content-length: ").nth(1).unwrap();
            let len: u64 = len.split("\r\n").next().unwrap().parse().unwrap();
            self.check_piece(from, &mut got, len)?;
            return Ok(got);
        }
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16).unwrap();
            self.check_piece(from, &mut got, size)?;
            from.read_exact(&mut [0; 2])?;
            if size == 0 {
                return Ok(got);
            }
        }
    }

    fn check_piece(&self, from: &mut impl Read, got: &mut u64, len: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut left = len;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap());
            let n = from.read(&mut buffer[..most])?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            assert!(self.holds(*got, &buffer[..n]), "wrong bytes behind {got}");
            *got += n as u64;
            left -= n as u64;
        }
        Ok(())
    }
}

/// A member that gives bodies (`/down/LEN`, `/down-chunked/LEN`), takes them (`/up` answers with
/// the length that it has checked), or takes the head of a request and nothing more (`/deaf`).
struct Warehouse {
    addr: SocketAddr,
    /// Body bytes that the kernel has taken for Weir.
    given: Arc<AtomicU64>,
}

impl Warehouse {
    fn start() -> Warehouse {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let given = Arc::new(AtomicU64::new(0));
        let (counter, pattern) = (given.clone(), Arc::new(Pattern::new()));
        let held = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counter, pattern, held) = (counter.clone(), pattern.clone(), held.clone());
                std::thread::spawn(move || {
                    let _end_of_connection = serve(&stream, &pattern, &counter, &held);
                });
            }
        });
        Warehouse { addr, given }
    }
}

fn head_of(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn serve(
    stream: &TcpStream,
    pattern: &Pattern,
    given: &AtomicU64,
    held: &Mutex<Vec<TcpStream>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut out = Counting(stream, given);
    loop {
        let head = head_of(&mut reader)?;
        let path = head.split(' ').nth(1).unwrap();
        if let Some(len) = path.strip_prefix("/down/") {
            write!(&mut &*stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
            pattern.write(&mut out, len.parse().unwrap(), false)?;
        } else if let Some(len) = path.strip_prefix("/down-chunked/") {
            let start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            (&*stream).write_all(start)?;
            pattern.write(&mut out, len.parse().unwrap(), true)?;
        } else if path == "/up" {
            let got = pattern.check(&mut reader, &head)?.to_string();
            let len = got.len();
            write!(&mut &*stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{got}")?;
        } else if path == "/deaf" {
            // Held open, unread, until the test's process ends.
            held.lock().unwrap().push(stream.try_clone()?);
            return Ok(());
        } else {
            (&*stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }
}

struct Counting<'a>(&'a TcpStream, &'a AtomicU64);

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.0.write(bytes)?;
        self.1.fetch_add(n as u64, Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn server(warehouse: &Warehouse) -> Server {
    Server::start(&config("[0]", 5, 0, &[(warehouse.addr, 1)]))
}

fn ask(server: &Server, request: &str) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server.web, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    write!(&mut &stream, "{request}\r\nHost: test\r\n").unwrap();
    stream
}

/// 2 GiB down, byte for byte, plain and chunked, in little memory.
#[test]
fn a_large_download_passes_byte_for_byte() {
    let len = count(2 << 30, 64 << 20);
    let (warehouse, pattern) = (Warehouse::start(), Pattern::new());
    let server = server(&warehouse);
    for path in ["down", "down-chunked"] {
        let stream = ask(&server, &format!("GET /{path}/{len} HTTP/1.1"));
        (&stream).write_all(b"\r\n").unwrap();
        let mut reader = BufReader::with_capacity(256 << 10, &stream);
        let head = head_of(&mut reader).unwrap();
        assert_eq!(pattern.check(&mut reader, &head).unwrap(), len, "{path}");
    }
    let peak = resident_peak(&server);
    println!("{len} bytes down, plain and chunked: {} KiB resident at most", peak >> 10);
    assert!(peak < RESIDENT_MOST, "{peak} bytes resident");
}

/// R6.4-1, R6.4-2: 2 GiB up, byte for byte, plain and chunked, in little memory.
#[test]
fn a_large_upload_passes_byte_for_byte() {
    let len = count(2 << 30, 64 << 20);
    let (warehouse, pattern) = (Warehouse::start(), Pattern::new());
    let server = server(&warehouse);
    for chunked in [false, true] {
        let stream = ask(&server, "POST /up HTTP/1.1");
        if chunked {
            (&stream).write_all(b"Transfer-Encoding: chunked\r\n\r\n").unwrap();
        } else {
            write!(&mut &stream, "Content-Length: {len}\r\n\r\n").unwrap();
        }
        pattern.write(&mut &stream, len, chunked).unwrap();
        let mut reader = BufReader::new(&stream);
        let head = head_of(&mut reader).unwrap();
        let mut answer = vec![0; len.to_string().len()];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), len.to_string(), "{head}");
    }
    let peak = resident_peak(&server);
    println!("{len} bytes up, plain and chunked: {} KiB resident at most", peak >> 10);
    assert!(peak < RESIDENT_MOST, "{peak} bytes resident");
}

/// Waits until `value` has stood still for a while; what it is then.
fn at_rest(value: impl Fn() -> u64) -> u64 {
    let (mut last, mut since) = (value(), clock::mono());
    let end = since.plus(LIMIT);
    while clock::mono().since(since).as_millis() < 500 {
        assert!(clock::mono() < end, "it never came to rest");
        let now = value();
        if now != last {
            (last, since) = (now, clock::mono());
        }
        std::thread::yield_now();
    }
    last
}

/// Clients that stop reading stop their members, hold a bounded amount of memory, and hold nobody
/// up; when they go on, every byte is there.
#[test]
fn clients_that_stop_reading_are_bounded() {
    const CLIENTS: usize = 20;
    const LEN: u64 = 40 << 20;
    let (warehouse, pattern) = (Warehouse::start(), Pattern::new());
    let server = server(&warehouse);
    let stalled: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let stream = ask(&server, &format!("GET /down/{LEN} HTTP/1.1"));
            (&stream).write_all(b"\r\n").unwrap();
            stream
        })
        .collect();
    let given = at_rest(|| warehouse.given.load(Relaxed));
    assert!(given < CLIENTS as u64 * LEN, "the members were never stopped");
    let peak = resident_peak(&server);
    println!("{CLIENTS} clients stopped reading: {} KiB resident at most", peak >> 10);
    assert!(peak < RESIDENT_MOST, "{peak} bytes resident");
    assert_eq!(get(server.web, "/").body, "ok");
    for stream in &stalled {
        let mut reader = BufReader::with_capacity(256 << 10, stream);
        let head = head_of(&mut reader).unwrap();
        assert_eq!(pattern.check(&mut reader, &head).unwrap(), LEN);
    }
}

/// The same the other way: a member that reads nothing stops its clients.
#[test]
fn members_that_stop_reading_are_bounded() {
    const CLIENTS: usize = 10;
    const LEN: u64 = 40 << 20;
    let warehouse = Warehouse::start();
    let pattern = Arc::new(Pattern::new());
    let server = server(&warehouse);
    let taken = Arc::new(AtomicU64::new(0));
    let stalled: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let stream = ask(&server, "POST /deaf HTTP/1.1");
            write!(&mut &stream, "Content-Length: {LEN}\r\n\r\n").unwrap();
            let (writer, taken, pattern) =
                (stream.try_clone().unwrap(), taken.clone(), pattern.clone());
            std::thread::spawn(move || {
                // Ends when the test shuts the connection down.
                let _cut = pattern.write(&mut Counting(&writer, &taken), LEN, false);
            });
            stream
        })
        .collect();
    until("the clients were heard", || taken.load(Relaxed) > 0);
    let taken = at_rest(|| taken.load(Relaxed));
    assert!(taken < CLIENTS as u64 * LEN, "the clients were never stopped");
    let peak = resident_peak(&server);
    assert!(peak < RESIDENT_MOST, "{peak} bytes resident");
    assert_eq!(get(server.web, "/").body, "ok");
    for stream in stalled {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
}
