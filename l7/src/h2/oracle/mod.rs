//! Conversations chosen by seed between our `Connection` and another implementation of HTTP/2, the
//! crate `h2`, in either role: over pipes that cut bytes anywhere, with windows, tables, trailers,
//! resets and drains of all kinds. What fails names its seed; `WEIR_SEED=n` runs that one alone.

mod app;
mod caller;
mod client_role;
mod server_role;
mod wire;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// More rounds than any conversation takes.
const ROUNDS: usize = 200_000;

/// A small generator (SplitMix64): reproducible variety is all that is needed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A generator of its own.
    fn split(&mut self) -> Chance {
        Chance(self.below(usize::MAX) as u64)
    }

    /// Bytes of a body, in pieces; `most` in all.
    fn pieces(&mut self, most: usize) -> Vec<Vec<u8>> {
        let total = self.below(self.clone().of(&[1, 10, 1_000, 20_000, 100_000]).min(most) + 1);
        let typical = self.of(&[10, 1_000, 40_000]);
        let (mut pieces, mut left, mut byte) = (Vec::new(), total, self.below(251));
        while left > 0 {
            let len = (1 + self.below(typical)).min(left);
            pieces.push((byte..byte + len).map(|n| (n % 251) as u8).collect());
            (left, byte) = (left - len, byte + len);
        }
        pieces
    }

    /// Fields: some that come again and again, some that don't.
    fn fields(&mut self, prefix: &str) -> Vec<(String, String)> {
        let count = self.of(&[0, 1, 5, 30]);
        let field = |n| {
            let len = self.of(&[0, 3, 20, 20, 700]);
            let value = (0..len).map(|_| (b'!' + self.below(94) as u8) as char).collect();
            match self.below(3) {
                0 => (format!("{prefix}always"), "the same".to_owned()),
                1 => (format!("{prefix}often-{}", self.below(40)), format!("v{}", self.below(4))),
                _ => (format!("{prefix}{n}"), value),
            }
        };
        (0..count).map(field).collect()
    }
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(n, v): &(String, String)| {
        (HeaderName::try_from(n).unwrap(), HeaderValue::try_from(v).unwrap())
    };
    fields.iter().map(field).fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(name, value);
        map
    })
}

/// The fields with this prefix, in the order of their names.
fn listed(map: &HeaderMap, prefix: &str) -> Vec<(String, String)> {
    let all = map.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
    let text = |(n, v): (&HeaderName, &HeaderValue)| {
        (n.as_str().to_owned(), v.to_str().unwrap().to_owned())
    };
    let mut fields: Vec<_> = all.map(text).collect();
    fields.sort();
    fields
}

/// Runs conversations; every day some, in `tests/soak` many.
fn conversations(run: impl Fn(u64)) {
    let full = std::env::var_os("WEIR_COUNTS").is_some_and(|v| v == "full");
    let seeds = match std::env::var("WEIR_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..if full { 10_000 } else { 24 },
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        result.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

/// Polls those that are not done once.
fn poll_all(tasks: &mut Vec<Task>) {
    let mut context = Context::from_waker(Waker::noop());
    tasks.retain_mut(|task| task.as_mut().poll(&mut context) == Poll::Pending);
}

/// Two at once.
async fn both(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let mut parts: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![Box::pin(a), Box::pin(b)];
    std::future::poll_fn(|context| {
        parts.retain_mut(|part| part.as_mut().poll(context) == Poll::Pending);
        if parts.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
