//! Text both ways through two streams of ours, whatever the suite and however the ring misbehaves.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use weir_core::rt::{self, FaultPlan, SendBuf};
use weir_core::tls::{Client, Server, Stream};

use crate::keys::{sides, sides_of};
use crate::pair::{pair, post};
use crate::support::{on_faulty_shard, on_shard};

/// Dice with a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Byte `n` of every text.
fn byte(n: u64) -> u8 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

async fn end(stream: &Stream) {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

async fn send_text(stream: &Stream, len: u64, dice: &mut Dice) {
    let mut sent = 0;
    while sent < len {
        let most = [10, 500, 5_000, 40_000][dice.below(4) as usize];
        let piece = (1 + dice.below(most)).min(len - sent);
        let mut buf = SendBuf::new();
        buf.extend((sent..sent + piece).map(byte));
        post(stream, buf).await;
        sent += piece;
    }
    end(stream).await;
}

/// Sends what comes back as it came, by itself or behind a copy of its beginning.
async fn echo(stream: &Stream, dice: &mut Dice) {
    while let Some(mut lease) = stream.recv().await.unwrap() {
        if dice.below(8) == 0 {
            stream.unread(lease);
            lease = stream.recv().await.unwrap().unwrap();
        }
        if dice.below(2) == 0 {
            post(stream, lease).await;
        } else {
            let mut buf = SendBuf::new();
            let len = lease.len().min(1 + dice.below(300) as usize);
            buf.extend_from_slice(&lease[..len]);
            lease.advance(len);
            post(stream, (buf, lease)).await;
        }
    }
    end(stream).await;
}

async fn receive_text(stream: &Stream, dice: &mut Dice) -> u64 {
    let mut got = 0;
    while let Some(lease) = stream.recv().await.unwrap() {
        assert!(!lease.is_empty());
        assert!((got..).zip(&lease[..]).all(|(n, b)| *b == byte(n)), "behind {got}");
        got += lease.len() as u64;
        if dice.below(20) == 0 {
            rt::sleep(Duration::from_millis(dice.below(3))).await;
        }
    }
    got
}

async fn there_and_back(server: Server, client: Client, len: u64, seed: u64) {
    let (outside, inside) = pair(&server, &client).await;
    rt::spawn(async move { echo(&inside, &mut Dice(seed + 1)).await });
    let outside = Rc::new(outside);
    let sending = Rc::clone(&outside);
    rt::spawn(async move { send_text(&sending, len, &mut Dice(seed + 2)).await });
    assert_eq!(receive_text(&outside, &mut Dice(seed + 3)).await, len);
}

#[test]
fn every_suite_carries_every_byte() {
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let (server, client) = sides_of(&[*suite]);
        on_shard(move || async move {
            let (outside, inside) = pair(&server, &client).await;
            let name = format!("{:?}", suite.suite());
            let facts = inside.tls().unwrap();
            assert_eq!(facts.cipher(), outside.tls().unwrap().cipher());
            assert_eq!(facts.is_tls13(), name.starts_with("TLS13_"));
            assert_eq!(facts.server_name.as_deref(), Some("localhost"));
            assert!(facts.cipher().len() > 10, "{name}");
            drop((outside, inside));
            for len in [0, 1, 16_384, 16_385, 1_000_000] {
                there_and_back(server.clone(), client.clone(), len, len).await;
            }
        });
    }
}

fn transfers_with(faults: FaultPlan) {
    let (server, client) = sides();
    for seed in 1..4 {
        let (server, client) = (server.clone(), client.clone());
        on_faulty_shard(FaultPlan { seed, ..faults }, move || async move {
            for n in 0..6 {
                let len = Dice(seed * 10 + n).below(2_000_000);
                there_and_back(server.clone(), client.clone(), len, seed + n).await;
            }
        });
    }
}

#[test]
fn transfers_are_exact() {
    transfers_with(FaultPlan::default());
}

#[test]
fn transfers_are_exact_on_a_ring_that_misbehaves() {
    transfers_with(FaultPlan {
        starve: 200,
        cancel: 50,
        short_send: 300,
        end_multishot: 300,
        tiny_queue: true,
        ..FaultPlan::default()
    });
}
