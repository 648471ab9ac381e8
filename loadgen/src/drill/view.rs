//! Pure: what the slices of a run tell of a drill, as figures and in words. Made by `drill`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{SLICE, Slice};
use crate::units;

/// What the clients saw of it; times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    /// What happened.
    pub kind: String,
    /// When, from the beginning of the measured window.
    pub at: f64,
    /// When it was made good again.
    pub undone_at: Option<f64>,
    /// How long it took to do it.
    pub took: f64,
    /// What the balancer said of it, where it says something.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told: Option<String>,
    /// Why it could not be done; then the rest says nothing.
    pub failure: Option<String>,
    /// Why it could not be undone; the rest holds nevertheless.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub undo_failure: Option<String>,
    /// Requests without a right answer, in the whole window.
    pub lost: u64,
    /// The same before it happened.
    pub lost_before: u64,
    /// Longest time without a right answer, within 10 ms.
    pub gap: f64,
    /// From the deed until the last request that failed of it: so long the balancer sent clients
    /// the wrong way. 0 = none failed.
    pub detect: f64,
    /// From the deed until nine in ten of the requests that were due were answered again, and none
    /// failed, for the rest of the window. 0 = they always were.
    pub recover: f64,
}

/// Slices of the window in which a recovery is seen: 100 ms.
const TOGETHER: usize = 10;

impl DrillView {
    /// What `slices` of the window tell of what is called `kind`; it was done `at` after their
    /// beginning, and `rate` requests a second were due.
    pub fn new(kind: &str, at: Duration, slices: &[Slice], rate: u64) -> DrillView {
        let place = |time: Duration| (time.as_nanos() / SLICE.as_nanos()) as usize;
        let begun = place(at).min(slices.len());
        let bad = |slice: &Slice| u64::from(slice.bad);
        let last_bad = slices[begun..].iter().rposition(|slice| slice.bad > 0);
        let after =
            |slices: usize| (SLICE * u32::try_from(slices).unwrap_or(u32::MAX)).as_secs_f64();
        DrillView {
            kind: kind.to_string(),
            at: at.as_secs_f64(),
            undone_at: None,
            took: 0.0,
            told: None,
            failure: None,
            undo_failure: None,
            lost: slices.iter().map(bad).sum(),
            lost_before: slices[..begun].iter().map(bad).sum(),
            gap: after(longest_gap(slices, rate)),
            detect: last_bad.map_or(0.0, |last| after(last + 1)),
            recover: after(recovery(&slices[begun..], rate)),
        }
    }

    /// In a few lines.
    pub fn to_text(&self) -> String {
        let time = units::seconds;
        let mut out = format!("  drill {}, {} into the run", self.kind, time(self.at));
        let undo_failure = self.undo_failure.as_ref();
        let not_undone = undo_failure.map(|why| format!("    NOT UNDONE: {why}\n"));
        let not_undone = not_undone.unwrap_or_default();
        if let Some(failure) = &self.failure {
            return out + &format!(" FAILED: {failure}\n{not_undone}");
        }
        if let Some(undone) = self.undone_at {
            out.push_str(&format!(", undone at {}", time(undone)));
        }
        out.push('\n');
        out.push_str(&not_undone);
        if let Some(told) = &self.told {
            out.push_str(&format!("    done in         {:>10}  {told}\n", time(self.took)));
        }
        out + &format!(
            "    lost            {:>10}  requests without a right answer ({} before it)\n    \
             longest gap     {:>10}  without a right answer\n    \
             time to detect  {:>10}  until no request failed of it any more\n    \
             time to recover {:>10}  until all was as before\n",
            units::count(self.lost),
            units::count(self.lost_before),
            time(self.gap),
            time(self.detect),
            time(self.recover),
        )
    }
}

/// Most slices in a row without a right answer, those left out in which none was due.
fn longest_gap(slices: &[Slice], rate: u64) -> usize {
    // With few requests, most slices are empty: that is no gap.
    let usual = (SLICE.as_secs_f64() * rate as f64).recip().ceil().max(1.0) as usize;
    let (mut longest, mut present) = (0, 0);
    for slice in slices {
        present = if slice.good > 0 { 0 } else { present + 1 };
        longest = longest.max(present);
    }
    if longest > usual { longest } else { 0 }
}

/// Slices from the beginning until the last stretch in which too few were answered or one failed.
fn recovery(slices: &[Slice], rate: u64) -> usize {
    let due = SLICE.as_secs_f64() * rate as f64 * TOGETHER as f64;
    // The last stretch may be cut, and its requests still under way.
    let whole = slices.len() / TOGETHER * TOGETHER;
    let stretches: Vec<&[Slice]> = slices[..whole].chunks(TOGETHER).collect();
    let judged = &stretches[..stretches.len().saturating_sub(1)];
    let poor = judged.iter().rposition(|stretch| {
        let good: u64 = stretch.iter().map(|slice| u64::from(slice.good)).sum();
        let bad = stretch.iter().any(|slice| slice.bad > 0);
        bad || (good as f64) < 0.9 * due - 1.0
    });
    poor.map_or(0, |last| (last + 1) * TOGETHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window in slices of 10 ms with 1000 requests a second, changed in places.
    fn slices(count: usize, change: impl Fn(usize) -> Option<(u32, u32)>) -> Vec<Slice> {
        let slice = |n| {
            let (good, bad) = change(n).unwrap_or((10, 0));
            Slice { good, bad }
        };
        (0..count).map(slice).collect()
    }

    fn view(slices: &[Slice]) -> DrillView {
        DrillView::new("kill-member", Duration::from_secs(1), slices, 1000)
    }

    #[test]
    fn nothing_is_lost() {
        let view = view(&slices(300, |_| None));
        assert_eq!((view.lost, view.gap, view.detect, view.recover), (0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn errors_and_a_gap() {
        // From 1.00 s on half of them fail, nothing comes at all from 1.20 to 1.35 s.
        let view = view(&slices(300, |n| match n {
            50 => Some((9, 1)),
            100..120 => Some((5, 5)),
            120..135 => Some((0, 0)),
            _ => None,
        }));
        assert_eq!((view.lost, view.lost_before), (101, 1));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(view.gap, 0.15);
        near(view.detect, 0.2);
        near(view.recover, 0.4);
        let text = view.to_text();
        assert!(text.contains("kill-member") && text.contains("101"), "{text}");
    }

    #[test]
    fn few_requests_make_no_gap() {
        let sparse = slices(300, |n| Some((u32::from(n % 10 == 0), 0)));
        let view = DrillView::new("reload", Duration::from_secs(1), &sparse, 10);
        assert_eq!((view.gap, view.recover), (0.0, 0.0));
        let none = DrillView::new("reload", Duration::from_secs(9), &[], 10);
        assert_eq!(none.lost, 0);
    }

    #[test]
    fn what_is_not_undone_hides_no_figures() {
        let mut view = view(&slices(300, |n| (n == 150).then_some((9, 1))));
        view.undo_failure = Some("a reason".to_string());
        let text = view.to_text();
        assert!(text.contains("NOT UNDONE: a reason") && text.contains("lost"), "{text}");
        view.failure = Some("no deed".to_string());
        let text = view.to_text();
        assert!(text.contains("FAILED: no deed") && text.contains("a reason"), "{text}");
    }
}
