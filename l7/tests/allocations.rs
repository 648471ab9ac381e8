//! A request on warm connections allocates nothing: shown by counting what the shard's thread asks
//! of the allocator. One test only, since the count is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts can only be written so")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use support::{Member, Shard};

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

/// Allocations of the shard's thread so far. Asking costs some itself.
fn allocations(shard: &Shard) -> u64 {
    shard.run(|| ALLOCATIONS.with(Cell::get))
}

/// Allocations that `requests` rounds of `round` cause.
fn cost(shard: &Shard, requests: usize, round: &mut dyn FnMut()) -> u64 {
    let before = allocations(shard);
    (0..requests).for_each(|_| round());
    allocations(shard) - before
}

#[test]
fn warm_requests_allocate_nothing() {
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            conn.send(match request.line() {
                "GET /chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                        .into()
                }
                "GET /large" => support::ok(&"x".repeat(200_000)),
                _ => support::ok("hello"),
            });
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    for request in [
        "GET / HTTP/1.1\r\nHost: w\r\nAccept: */*\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /chunked HTTP/1.1\r\nHost: w\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: w\r\n\r\n",
    ] {
        let mut client = shard.client();
        let mut round = || {
            client.send(request);
            assert_eq!(client.answer().status, 200);
        };
        // A connection's first request does allocate: the count counts.
        assert!(cost(&shard, 1, &mut round) > 0);
        // Pools and queues reach their size; asking has its own price.
        cost(&shard, 50, &mut round);
        let asking = cost(&shard, 0, &mut round);
        let some = cost(&shard, 100, &mut round);
        assert!(some <= asking, "{} allocations in 100 times {request:?}", some - asking);
    }
}
