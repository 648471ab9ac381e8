//! Text through a warm connection allocates nothing, either way: counted on the shard's thread. One
//! test only, since the count is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts can only be written so")]

#[allow(dead_code, reason = "shared with the tests of streams")]
mod keys;
mod pair;
#[allow(dead_code, reason = "shared with the tests of the runtime")]
#[path = "../rt/support.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weir_core::rt::{Lease, SendBuf};
use weir_core::tls::Stream;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Fails only while the thread's locals are torn down, which is of no interest here.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: all work is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
                let before = ALLOCATIONS.with(Cell::get);
                for _ in 0..1_000 {
                    round(&near, &far, len).await;
                }
                assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{len} bytes a round");
            }
        });
    }
}
