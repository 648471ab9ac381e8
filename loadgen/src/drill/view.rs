//! Pure: what the slices of a run tell of a drill, as figures and in words. Made by `drill`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_SLICES;
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
    /// Requests that were due in the window and got no right answer.
    pub lost: u64,
    /// The same before it happened.
    pub lost_before: u64,
    /// Of `lost`: those that were never sent, for want of a free connection, and those that had
    /// neither been answered nor failed when the run ended.
    pub never: u64,
    /// Longest time without a right answer, within 10 ms.
    pub gap: f64,
    /// How long loadgen itself did not run in time, within 10 ms: in neither `gap` nor `recover`.
    #[serde(default)]
    pub stalled: f64,
    /// From the deed until the last request that failed of it: so long the balancer sent clients
    /// the wrong way. 0 = none failed; `None` = some failed until the end.
    pub detect: Option<f64>,
    /// From the deed until nine in ten of the requests that were due were answered again, and none
    /// failed, for the rest of the window. 0 = they always were; `None` = not within the run.
    pub recover: Option<f64>,
}

/// What a run at a constant rate tells of its measured window.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// What ended, from the beginning of the window on.
    pub slices: &'a [Slice],
    /// Length of the window; what ended later was only waited for.
    pub window: Duration,
    /// Requests a second that were due.
    pub rate: u64,
    /// Requests that were due in it and never ended.
    pub never: u64,
}

/// Slices of the window in which a recovery is seen: 100 ms.
const TOGETHER: usize = 10;

/// What is said of a time that did not come.
pub(crate) const NOT_WITHIN: &str = "not within the run";

impl DrillView {
    /// What `course` tells of what is called `kind` and was done `at` after its beginning.
    pub fn new(kind: &str, at: Duration, course: Course<'_>) -> DrillView {
        let Course { rate, never, .. } = course;
        let place = |time: Duration| (time.as_nanos() / SLICE.as_nanos()) as usize;
        let mut slices = course.slices.to_vec();
        let window = place(course.window).min(MAX_SLICES);
        // Nothing at all may have ended in the last ones.
        slices.resize(slices.len().max(window), Slice::default());
        let begun = place(at).min(window);
        let bad = |slice: &Slice| u64::from(slice.bad);
        let last_good = slices.iter().rposition(|slice| slice.good > 0);
        let heard = last_good.map_or(window, |last| window.max(last + 1));
        let last_bad = slices[begun..].iter().rposition(|slice| slice.bad > 0);
        let Recovery { after: recovered, judged } = recovery(&slices[begun..window], rate);
        // A failure in the last stretch leaves nothing in which it could be seen to be over.
        let to_the_end = never > 0 || last_bad.is_some_and(|last| last + TOGETHER >= judged);
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
            lost: slices.iter().map(bad).sum::<u64>() + never,
            lost_before: slices[..begun].iter().map(bad).sum(),
            never,
            gap: after(longest_gap(&slices[..heard], rate)),
            stalled: after(slices.iter().filter(|slice| slice.stalled).count()),
            detect: (!to_the_end).then(|| last_bad.map_or(0.0, |last| after(last + 1))),
            recover: recovered.filter(|_| !to_the_end).map(after),
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
        let never = match self.never {
            0 => String::new(),
            n => format!(", {} never sent or never answered", units::count(n)),
        };
        let before = format!("{} before it", units::count(self.lost_before));
        let within = |after: Option<f64>, what: &str| match after {
            Some(after) => format!("{:>10}  {what}", time(after)),
            None => format!("{:>10}  {NOT_WITHIN}: {what}", "–"),
        };
        if self.stalled > 0.0 {
            let words = "loadgen itself did not run in time: not in the gap, nor in the recovery";
            out.push_str(&format!("    stalled         {:>10}  {words}\n", time(self.stalled)));
        }
        out + &format!(
            "    lost            {:>10}  requests without a right answer ({before}{never})\n    \
             longest gap     {:>10}  without a right answer\n    \
             time to detect  {}\n    \
             time to recover {}\n",
            units::count(self.lost),
            time(self.gap),
            within(self.detect, "until no request failed of it any more"),
            within(self.recover, "until all was as before"),
        )
    }
}

/// Most slices in a row without a right answer, those left out in which none was due.
fn longest_gap(slices: &[Slice], rate: u64) -> usize {
    // With few requests, most slices are empty: that is no gap.
    let usual = (SLICE.as_secs_f64() * rate as f64).recip().ceil().max(1.0) as usize;
    let (mut longest, mut present) = (0, 0);
    for slice in slices {
        present = match slice {
            Slice { good: 1.., .. } => 0,
            Slice { stalled: true, .. } => present,
            _ => present + 1,
        };
        longest = longest.max(present);
    }
    if longest > usual { longest } else { 0 }
}

/// When all was well again.
struct Recovery {
    /// Slices from the beginning until then; `None` = not as far as was judged.
    after: Option<usize>,
    /// Slices that were judged.
    judged: usize,
}

/// Looks for the last stretch in which too few were answered or one failed.
fn recovery(slices: &[Slice], rate: u64) -> Recovery {
    let due = SLICE.as_secs_f64() * rate as f64 * TOGETHER as f64;
    // The last stretch may be cut, and its requests still under way.
    let whole = slices.len() / TOGETHER * TOGETHER;
    let stretches: Vec<&[Slice]> = slices[..whole].chunks(TOGETHER).collect();
    let judged = &stretches[..stretches.len().saturating_sub(1)];
    let poor = judged.iter().rposition(|stretch| {
        let good: u64 = stretch.iter().map(|slice| u64::from(slice.good)).sum();
        let bad = stretch.iter().any(|slice| slice.bad > 0);
        let stalled = stretch.iter().any(|slice| slice.stalled);
        bad || !stalled && (good as f64) < 0.9 * due - 1.0
    });
    let well_from = poor.map_or(0, |last| last + 1);
    let after = (well_from == 0 || well_from < judged.len()).then_some(well_from * TOGETHER);
    Recovery { after, judged: judged.len() * TOGETHER }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window in slices of 10 ms with 1000 requests a second, changed in places.
    fn slices(count: usize, change: impl Fn(usize) -> Option<(u32, u32)>) -> Vec<Slice> {
        let slice = |n| {
            let (good, bad) = change(n).unwrap_or((10, 0));
            Slice { good, bad, stalled: false }
        };
        (0..count).map(slice).collect()
    }

    /// Of three seconds, with the deed after the first.
    fn view(slices: &[Slice]) -> DrillView {
        never(slices, 0)
    }

    fn never(slices: &[Slice], never: u64) -> DrillView {
        let course = Course { slices, window: Duration::from_secs(3), rate: 1000, never };
        DrillView::new("kill-member", Duration::from_secs(1), course)
    }

    #[test]
    fn nothing_is_lost() {
        let view = view(&slices(300, |_| None));
        assert_eq!((view.lost, view.gap), (0, 0.0));
        assert_eq!((view.detect, view.recover), (Some(0.0), Some(0.0)));
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
        near(view.detect.unwrap(), 0.2);
        near(view.recover.unwrap(), 0.4);
        let text = view.to_text();
        assert!(text.contains("kill-member") && text.contains("101"), "{text}");
    }

    /// The target hangs from 1 s on: 16 connections wait for their answers, all other requests for
    /// a connection. When it hangs for ever, nothing but the 16 ends, by their time limit.
    #[test]
    fn what_hangs_until_the_end_is_lost_and_not_over() {
        let hangs = slices(300, |n| (n >= 100).then_some((0, 0)));
        let for_ever =
            [&hangs[..], &vec![Slice::default(); 800], &[Slice { bad: 16, ..Slice::default() }]];
        for (view, lost) in [
            (never(&hangs[..100], 2000), 2000),
            (never(&hangs, 2000), 2000),
            (never(&for_ever.concat(), 1984), 2000),
        ] {
            assert_eq!((view.lost, view.detect, view.recover), (lost, None, None), "{view:?}");
            assert!((view.gap - 2.0).abs() < 1e-9, "{view:?}");
            let text = view.to_text();
            assert_eq!(text.matches(NOT_WITHIN).count(), 2, "{text}");
            assert!(text.contains("never sent or never answered"), "{text}");
        }
        // It goes on after the window, and whoever waited is answered then.
        let back =
            [&hangs[..], &[Slice::default(); 200], &[Slice { good: 16, ..Slice::default() }]]
                .concat();
        let back = never(&back, 1984);
        assert!((back.gap - 4.0).abs() < 1e-9 && back.recover.is_none(), "{back:?}");
    }

    #[test]
    fn who_fails_or_is_slow_in_the_end_has_not_recovered() {
        // Ten in a hundred fail all the time after the deed.
        let failing = view(&slices(300, |n| (n >= 100 && n % 10 == 0).then_some((9, 1))));
        assert_eq!((failing.detect, failing.recover), (None, None), "{failing:?}");
        // Half of them are not answered in time, and none fails.
        let slow = view(&slices(300, |n| (n >= 100).then_some((5, 0))));
        assert_eq!((slow.detect, slow.recover), (Some(0.0), None), "{slow:?}");
    }

    /// Nothing comes for 0.2 s, of which loadgen itself slept the half.
    #[test]
    fn own_stalls_are_not_the_targets() {
        let mut slept = slices(300, |n| (100..120).contains(&n).then_some((0, 0)));
        slept[100..110].iter_mut().for_each(|slice| slice.stalled = true);
        let view = view(&slept);
        assert!((view.gap - 0.1).abs() < 1e-9 && (view.stalled - 0.1).abs() < 1e-9, "{view:?}");
        assert_eq!(view.recover, Some(0.2));
        slept[110..120].iter_mut().for_each(|slice| slice.stalled = true);
        let view = self::view(&slept);
        assert_eq!((view.gap, view.recover), (0.0, Some(0.0)));
        assert!(view.to_text().contains("stalled"), "{}", view.to_text());
        // What fails meanwhile has failed.
        slept[105].bad = 1;
        let view = self::view(&slept);
        assert_eq!((view.lost, view.recover), (1, Some(0.1)));
    }

    #[test]
    fn few_requests_make_no_gap() {
        let sparse = slices(300, |n| Some((u32::from(n % 10 == 0), 0)));
        let window = Duration::from_secs(3);
        let course = Course { slices: &sparse, window, rate: 10, never: 0 };
        let view = DrillView::new("reload", Duration::from_secs(1), course);
        assert_eq!((view.gap, view.recover), (0.0, Some(0.0)));
        let none = Course { slices: &[], window: Duration::ZERO, ..course };
        let none = DrillView::new("reload", Duration::from_secs(9), none);
        assert_eq!((none.lost, none.gap, none.recover), (0, 0.0, Some(0.0)));
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
