//! A member that shows what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A member that answers each request with its head.
pub fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || reflect(BufReader::new(stream)));
        }
    });
    address
}

fn reflect(mut reader: BufReader<TcpStream>) {
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 0) {
        if head.ends_with("\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            head.clear();
        }
    }
}
