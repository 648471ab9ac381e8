//! What `/metrics` says about TLS handshakes.

use weir_core::obs::{BOUNDS_US, Distribution, Shaken};
use weir_core::tls::Failure;

use super::metrics::{ListenerRow, Page};
use super::names;
use super::text::Text;

pub(super) fn render(text: &mut Text, page: &Page) {
    let rows = || page.listeners.iter().filter(|row| row.tls);
    let mut family = text.family(&names::TLS_HANDSHAKES);
    for ListenerRow { label, blocks, .. } in rows() {
        for shaken in Shaken::ALL {
            let [kind, version] = shaken.names();
            let n: u64 = blocks.iter().map(|block| block.handshakes.done(shaken)).sum();
            family.sample(&[label, kind, version], n);
        }
    }
    let mut family = text.family(&names::TLS_FAILURES);
    for ListenerRow { label, blocks, .. } in rows() {
        for failure in Failure::ALL {
            let n: u64 = blocks.iter().map(|block| block.handshakes.failed(failure)).sum();
            if n > 0 {
                family.sample(&[label, failure.name()], n);
            }
        }
    }
    let mut family = text.family(&names::TLS_SECONDS);
    for ListenerRow { label, blocks, .. } in rows() {
        let all = Distribution::of(blocks.iter().map(|block| &block.handshakes.times));
        family.histogram(&[label], &all, &BOUNDS_US);
    }
}
