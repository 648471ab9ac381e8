//! Several runs one after another, which a signal ends together: whoever plans rounds or searches a
//! rate runs them through this. Called by `commands` and the jobs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{RunError, run_with};
use crate::live::{Live, Second, Snapshot};
use crate::plan::Plan;
use crate::report::Report;

/// The run that goes on now, and whether to go on at all.
#[derive(Debug, Default)]
pub struct Control {
    stopped: Arc<AtomicBool>,
    present: Mutex<Option<Arc<Live>>>,
    left: Mutex<Option<String>>,
}

impl Control {
    /// Ends the present run soon, and lets no other one begin. From any thread.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.iter().for_each(|live| live.stop());
    }

    /// Has the present run ask nothing more; it ends when all that it has asked by then was
    /// answered or has failed. From any thread.
    pub fn finish(&self) {
        if let Some(live) = self.present() {
            live.finish();
        }
    }

    /// Somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Is set once somebody asks to stop; for threads that outlive a borrow.
    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// The run that goes on now.
    pub fn present(&self) -> Option<Arc<Live>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what is to be put right by hand when the program ends now; `None` = nothing any more.
    pub(crate) fn leave(&self, what: Option<String>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What is to be put right by hand when the program ends now.
    pub(crate) fn left(&self) -> Option<String> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `plan`; `on_second` is told of each second.
    ///
    /// # Errors
    /// As a run; [`RunError::Stopped`] when it was stopped before.
    pub fn run(
        &self,
        plan: &Plan,
        on_second: &mut dyn FnMut(&Second, &Snapshot),
    ) -> Result<Report, RunError> {
        let live = Live::new(plan);
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&live));
        if self.is_stopped() {
            return Err(RunError::Stopped);
        }
        let seen = Arc::clone(&live);
        run_with(plan, &live, &mut |second| on_second(second, &seen.snapshot()))
    }
}
