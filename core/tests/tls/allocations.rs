//! Text through a warm connection allocates nothing, either way: counted on the shard's thread. One
//! test only, since the count is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../rt/counting.rs"]
mod counting;
#[allow(dead_code, reason = "shared with the tests of streams")]
mod keys;
mod pair;
#[allow(dead_code, reason = "shared with the tests of the runtime")]
#[path = "../rt/support.rs"]
mod support;

use weir_core::rt::{Lease, SendBuf};
use weir_core::tls::Stream;

/// Sends so many bytes, which come back in the leases that they arrived in.
async fn round(near: &Stream, far: &Stream, len: usize) {
    let mut buf = SendBuf::new();
    buf.resize(len, 7);
    pair::post(near, buf).await;
    let mut back = 0;
    let mut sent = 0;
    while sent < len {
        let lease: Lease = far.recv().await.unwrap().unwrap();
        sent += lease.len();
        pair::post(far, lease).await;
        while back < sent {
            back += near.recv().await.unwrap().unwrap().len();
        }
    }
}

/// Issue 5, item 1: records are opened and sealed where they lie.
#[test]
fn warm_connections_allocate_nothing() {
    for suite in [0, 3] {
        let suites = &rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES[suite..=suite];
        let (server, client) = keys::sides_of(suites);
        support::on_shard(move || async move {
            let (near, far) = pair::pair(&server, &client).await;
            for len in [300, 4_000, 12_000] {
                for _ in 0..100 {
                    round(&near, &far, len).await;
                }
                let before = counting::so_far();
                for _ in 0..1_000 {
                    round(&near, &far, len).await;
                }
                assert_eq!(counting::so_far() - before, 0, "{len} bytes a round");
            }
        });
    }
}
