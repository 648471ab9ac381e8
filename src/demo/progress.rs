//! What the demo shows while it runs, on stderr: a bar on a terminal, one line a phase elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::logging;

/// Bar, time left, what is going on, how fast.
const TEMPLATE: &str = "  {bar:32} {percent:>3} %  {msg}  {prefix}";

/// The view of one demo.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// A view of `whole` of work.
    pub fn new(whole: Duration) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(millis(whole)), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Progress { bar, terminal }
    }

    /// Something new begins.
    pub fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        if !self.terminal {
            logging::say(format_args!("weir demo: {text}"));
        }
    }

    /// `done` of the whole is over; `note` says how fast it goes.
    pub fn at(&self, done: Duration, note: String) {
        self.bar.set_position(millis(done));
        self.bar.set_prefix(note);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
