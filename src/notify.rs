//! What the service manager is told (sd_notify(3)). Without a notify socket nothing happens; a
//! broken one is no reason to stop serving.

use sd_notify::NotifyState;
use weir_core::time::clock;

/// All listeners accept; also after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload or an upgrade has begun; [`ready`] or [`replaced_by`] ends it.
pub fn reloading() {
    let micros = i128::from(clock::mono().nanos() / 1_000);
    tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(micros)]);
}

/// Another process serves in the place of this one. The last that this one says: from now on the
/// service manager listens to that one.
pub fn replaced_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready]);
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
