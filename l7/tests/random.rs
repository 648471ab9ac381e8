//! Many exchanges with chosen-by-seed framing, sizes, pieces and ends. What fails names its seed;
//! `WEIR_SEED=n` runs that one alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::io::Write;

use support::{Conn, Member, Shard, eventually};

/// A small generator (SplitMix64): the tests need reproducible variety, not quality.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    /// A size from a wide range, small ones often.
    fn size(&mut self) -> usize {
        let most = [1, 10, 300, 5_000, 70_000, 300_000][self.below(6)];
        self.below(most)
    }

    fn data(&mut self) -> Vec<u8> {
        let (size, start) = (self.size(), self.below(251));
        (0..size).map(|i| ((i * 31 + start) % 251) as u8).collect()
    }

    /// The fields and bytes of a message with `data`, framed in some way.
    fn framed(&mut self, data: &[u8]) -> Vec<u8> {
        if self.below(2) == 0 {
            let mut out = format!("Content-Length: {}\r\n\r\n", data.len()).into_bytes();
            out.extend_from_slice(data);
            return out;
        }
        let mut out = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut rest = data;
        let typical = [3, 100, 4_000, 60_000][self.below(4)];
        while !rest.is_empty() {
            let len = (1 + self.below(typical)).min(rest.len());
            let extension = ["", ";a", " ;b=\"c;\""][self.below(3)];
            out.extend(format!("{len:x}{extension}\r\n").bytes());
            out.extend_from_slice(&rest[..len]);
            out.extend_from_slice(b"\r\n");
            rest = &rest[len..];
        }
        out.extend_from_slice([&b"0\r\n\r\n"[..], b"0\r\nX: y\r\n\r\n"][self.below(2)]);
        out
    }

    /// Sends `data` in pieces.
    fn send(&mut self, conn: &mut Conn, data: &[u8]) {
        let typical = [7, 1_000, 10_000, 1_000_000][self.below(4)];
        let mut rest = data;
        let mut pieces = 0;
        while !rest.is_empty() {
            // Tiny pieces are for the start only: they cost a packet each.
            let most = if pieces < 200 { typical } else { 100_000 };
            let (now, later) = rest.split_at((1 + self.below(most)).min(rest.len()));
            let _ = conn.reader.get_mut().write_all(now);
            rest = later;
            pieces += 1;
        }
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("WEIR_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=count).collect(),
    }
}

/// A member that sends every body back, framed anew by chance.
fn mirror() -> Member {
    Member::start(|mut conn, number| {
        let mut chance = Chance(number as u64);
        while let Some(request) = conn.request() {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            answer.extend(chance.framed(&request.body));
            chance.send(&mut conn, &answer);
        }
    })
}

#[test]
fn bodies_pass_unchanged() {
    let member = mirror();
    let shard = Shard::with(&[(member.address, 1)]);
    for seed in seeds(12) {
        let mut chance = Chance(seed);
        let bodies: Vec<Vec<u8>> = (0..12).map(|_| chance.data()).collect();
        let mut all = Vec::new();
        for body in &bodies {
            all.extend_from_slice(b"PUT /x HTTP/1.1\r\nHost: w\r\n");
            all.extend(chance.framed(body));
        }
        // Pipelined: the answers are read while the requests are still being written.
        let mut client = shard.client();
        let writing = client.conn.stream().try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            chance.send(&mut Conn::new(writing), &all);
        });
        for (i, body) in bodies.iter().enumerate() {
            let answer = client.answer();
            assert_eq!(answer.status, 200, "seed {seed}, request {i}");
            assert!(&answer.body == body, "seed {seed}, request {i}: {} bytes", body.len());
        }
        writer.join().unwrap();
    }
}

/// Clients and members break off anywhere: in the end nothing is left of any of it (the shard's
/// audit, when it ends), and a good request is still served.
#[test]
fn breaking_off_leaves_nothing_behind() {
    let member = Member::start(|mut conn, number| {
        let mut chance = Chance(number as u64);
        let ends = chance.below(3);
        let Some(request) = conn.request() else { return };
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        answer.extend(chance.framed(&request.body));
        let cut = chance.below(answer.len() + 1);
        match ends {
            0 => chance.send(&mut conn, &answer),
            1 => chance.send(&mut conn, &answer[..cut]),
            _ => {
                chance.send(&mut conn, &answer[..cut]);
                conn.reset();
            }
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    for seed in seeds(300) {
        let mut chance = Chance(seed);
        let body = chance.data();
        let mut request = b"POST /x HTTP/1.1\r\nHost: w\r\n".to_vec();
        request.extend(chance.framed(&body));
        let cut = chance.below(request.len() * 2).min(request.len());
        let mut client = shard.client();
        chance.send(&mut client.conn, &request[..cut]);
        if chance.below(2) == 0 {
            client.conn.reset();
        } else if chance.below(2) == 0 {
            client.conn.finish();
            let _ = client.conn.rest();
        }
    }
    eventually("all have ended", || shard.active() == 0);
    assert_eq!(shard.counters().active_connections.get(), 0);
    eventually("the members' too", || shard.member(0).active_connections.get() == 0);
    let whole = (0..50).any(|_| shard.once("GET / HTTP/1.1\r\nHost: w\r\n\r\n").status == 200);
    assert!(whole, "a third of the member's answers are whole");
}
