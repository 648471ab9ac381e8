//! What the service manager is told (sd_notify(3)). Without a notify socket nothing happens; a
//! broken one is no reason to stop serving.

use sd_notify::NotifyState;
use weir_core::time::clock;

/// All listeners accept; also after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it.
pub fn reloading() {
    let micros = i128::from(clock::mono().nanos() / 1_000);
    tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(micros)]);
}

/// The process drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("cannot tell systemd ({e}); is NotifyAccess= right?");
    }
}
