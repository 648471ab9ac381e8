//! What ten thousand policies cost: steps of a look-up, and bytes of the table. Steps and bytes are
//! the same on every machine; with WEIR_COUNTS=full the time is measured as well and printed, to be
//! read from a release build on a quiet machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use weir_core::model::{self, Action, Compare, Handle, Handles, Policy, Rule, RuleKind};
use weir_core::policy::{Fields, RequestView, Resolve, Router};
use weir_core::time::clock;

struct Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// What the allocator spends on a block: sizes are multiples of 16, with 8 bytes of its own.
fn block(size: usize) -> isize {
    isize::try_from((size + 8).next_multiple_of(16).max(32)).unwrap_or(isize::MAX)
}

fn note(bytes: isize) {
    // Fails only while the thread's locals are torn down, which is of no interest here.
    let _ = BYTES.try_with(|total| total.set(total.get() + bytes));
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: all work is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(block(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-block(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Pools(Vec<Handle>);

impl Resolve for Pools {
    fn pool(&self, index: usize) -> Option<Handle> {
        self.0.get(index).copied()
    }

    fn port(&self, _: usize) -> u16 {
        443
    }
}

struct NoFields;

impl Fields for NoFields {
    fn any(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }

    fn any_cookie(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// How the policies of a table are told apart.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// By host and path.
    Both,
    /// By path, of one host.
    Paths,
    /// By beginnings of paths, nested four deep.
    Prefixes,
    /// By wildcard host and path.
    Wildcards,
}

impl Kind {
    fn host(self, n: usize) -> String {
        match self {
            Kind::Both => format!("shop-{n}.example.com"),
            Kind::Paths | Kind::Prefixes => "www.example.com".into(),
            Kind::Wildcards => format!("*.shop-{n}.example.com"),
        }
    }

    fn path(self, n: usize) -> String {
        match self {
            Kind::Both | Kind::Wildcards => "/api/v1/".into(),
            Kind::Paths => format!("/products/{n}/index.html"),
            Kind::Prefixes => (0..=n % 4).fold(format!("/s{}", n / 4), |p, d| format!("{p}/d{d}")),
        }
    }

    fn router(self, count: usize) -> Router {
        let mut handles = Handles::default();
        let pools = Pools((0..count).map(|_| handles.fresh()).collect());
        let compare = match self {
            Kind::Paths => Compare::EqualTo,
            _ => Compare::StartsWith,
        };
        let rule =
            |kind, compare, value| Rule { kind, compare, values: vec![value], invert: false };
        let policies: Vec<Policy> = (0..count)
            .map(|n| Policy {
                id: model::Id::from_u128(n as u128 + 1),
                name: format!("policy-{n}"),
                listener: 0,
                priority: None,
                rules: vec![
                    rule(RuleKind::HostName, Compare::EqualTo, self.host(n)),
                    rule(RuleKind::Path, compare, self.path(n)),
                ],
                action: Action::Pools(vec![(n, 1)]),
            })
            .collect();
        Router::new(&policies, &pools)
    }

    /// Looks up the request that meets policy `n`; its steps.
    fn look(self, router: &Router, n: usize, buffer: &mut Vec<u8>) -> u32 {
        let host = self.host(n).replace('*', "eu");
        let path = match self {
            Kind::Paths => self.path(n),
            _ => self.path(n) + "/orders/17",
        };
        look(router, &host, &path, buffer, Some(n))
    }
}

fn look(router: &Router, host: &str, path: &str, buffer: &mut Vec<u8>, met: Option<usize>) -> u32 {
    let view = RequestView {
        method: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: b"",
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        fields: &NoFields,
    };
    let calls = CALLS.get();
    let (found, steps) = router.search(black_box(&view), buffer);
    assert_eq!(CALLS.get(), calls, "a look-up takes no memory");
    let wanted = met.map(|n| format!("policy-{n}"));
    assert_eq!(found.map(|policy| &*policy.name), wanted.as_deref(), "{host} {path}");
    steps
}

const KINDS: [Kind; 4] = [Kind::Both, Kind::Paths, Kind::Prefixes, Kind::Wildcards];
const MANY: usize = 10_000;

/// Ten thousand host and path policies take a few steps more than one, and at most 1 KiB each.
#[test]
fn ten_thousand_policies() {
    let mut buffer = Vec::new();
    for kind in KINDS {
        let before = BYTES.get();
        let router = kind.router(MANY);
        let all = BYTES.get() - before;
        let bytes = all / MANY as isize;
        let steps = (0..MANY).step_by(97).map(|n| kind.look(&router, n, &mut buffer));
        let steps = steps.max().unwrap();
        println!("{kind:?}: {bytes} bytes a policy, at most {steps} steps");
        assert!((1..=1024).contains(&bytes), "{kind:?}: {bytes} bytes a policy");
        // A binary search over all paths of a host takes 14, nesting and wildcards a few.
        assert!(steps <= 32, "{kind:?}: {steps} steps");
        look(&router, "nowhere.example", "/", &mut buffer, None);
        if std::env::var_os("WEIR_COUNTS").is_some() {
            time(kind, &router, &mut buffer);
        }
        let held = BYTES.get();
        drop(router);
        assert_eq!(held - BYTES.get(), all, "all of it is given back");
    }
}

/// Prints nanoseconds a look-up, with one policy and with many: the median of rounds.
fn time(kind: Kind, many: &Router, buffer: &mut Vec<u8>) {
    let one = kind.router(1);
    let requests: Vec<(String, String, usize)> = (0..MANY)
        .map(|n| n * 7_919 % MANY)
        .map(|n| (kind.host(n).replace('*', "eu"), kind.path(n), n))
        .collect();
    let measure = |router: &Router, pick: &dyn Fn(usize) -> usize, buffer: &mut Vec<u8>| {
        let mut rounds: Vec<u64> = (0..21)
            .map(|_| {
                let start = clock::mono();
                for at in 0..MANY {
                    let (host, path, n) = &requests[pick(at)];
                    look_fast(router, host, path, *n, buffer);
                }
                u64::try_from(clock::mono().since(start).as_nanos()).unwrap() / MANY as u64
            })
            .collect();
        rounds.sort_unstable();
        rounds[10]
    };
    let alone = measure(&one, &|_| 0, buffer);
    let hot = measure(many, &|_| 0, buffer);
    let all = measure(many, &|at| at, buffer);
    println!("{kind:?}: one policy {alone} ns; {MANY}: the same request {hot} ns, all {all} ns");
}

fn look_fast(router: &Router, host: &str, path: &str, n: usize, buffer: &mut Vec<u8>) {
    let view = RequestView {
        method: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: b"",
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        fields: &NoFields,
    };
    let found = black_box(router).find(black_box(&view), buffer);
    assert!(found.is_some_and(|policy| policy.id.as_u128() == n as u128 + 1));
}
