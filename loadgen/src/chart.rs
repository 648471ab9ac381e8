//! Pure: charts as inline SVG, without a script: lines over an axis, bars side by side. Used by
//! `html`.

use std::fmt::Write;

/// Width and height of a chart in its own units; the page scales it.
const SIZE: (f64, f64) = (720.0, 260.0);
/// Room for labels: left, right, top, bottom.
const ROOM: (f64, f64, f64, f64) = (78.0, 16.0, 12.0, 40.0);
/// Names of the colours that the page's style gives to lines and bars.
pub(crate) const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];

/// Where a value stands between the ends of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

/// An axis: its ends, and the values that are written beside it.
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) title: &'static str,
}

impl Axis {
    /// From zero to a round number not below `top`, with the marks written by `words`.
    pub(crate) fn linear(top: f64, title: &'static str, words: impl Fn(f64) -> String) -> Axis {
        let step = round_step(top.max(1e-12) / 5.0);
        let count = (top / step).ceil().max(1.0) as usize;
        let marks = (0..=count).map(|n| (n as f64 * step, words(n as f64 * step)));
        let (scale, low, high) = (Scale::Linear, 0.0, count as f64 * step);
        Axis { scale, low, high, marks: marks.collect(), title }
    }

    /// Powers of ten around what lies between `low` and `high`, both above zero.
    pub(crate) fn logarithmic(
        low: f64,
        high: f64,
        title: &'static str,
        words: impl Fn(f64) -> String,
    ) -> Axis {
        let from = low.max(1e-9).log10().floor() as i32;
        let to = (high.max(1e-9).log10().ceil() as i32).max(from + 1);
        let marks = (from..=to).map(|power| (10f64.powi(power), words(10f64.powi(power))));
        let (scale, marks) = (Scale::Logarithmic, marks.collect());
        Axis { scale, low: 10f64.powi(from), high: 10f64.powi(to), marks, title }
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
            }
        };
        place.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let fitting = steps.iter().find(|&&step| step * power >= least * (1.0 - 1e-9));
    fitting.unwrap_or(&10.0) * power
}

/// One line of a chart.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart of lines; `words` tells a point's value when it is pointed at.
pub(crate) fn lines(
    x: &Axis,
    y: &Axis,
    lines: &[Line<'_>],
    words: impl Fn(f64, f64) -> String,
) -> String {
    let mut out = frame(x, y);
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let places = line.points.iter().map(|&(a, b)| (across(x.place(a)), up(y.place(b))));
        let path: Vec<String> = places.clone().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
        let _ = write!(out, "<polyline class=\"line {colour}\" points=\"{}\"/>", path.join(" "));
        for ((left, top), &(a, b)) in places.zip(&line.points) {
            let told = escape(&format!("{}: {}", line.name, words(a, b)));
            let _ = write!(
                out,
                "<circle class=\"dot {colour}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\">\
                 <title>{told}</title></circle>"
            );
        }
    }
    out.push_str("</svg>");
    out + &legend(lines.iter().map(|line| line.name))
}

/// Bars that lie side by side: a name, a length, and what is written behind it.
pub(crate) fn bars(rows: &[(String, f64, String)]) -> String {
    const HEIGHT: f64 = 24.0;
    let top = rows.iter().map(|(_, value, _)| *value).fold(0.0, f64::max).max(1e-12);
    let height = rows.len() as f64 * HEIGHT + 4.0;
    let mut out = format!("<svg viewBox=\"0 0 {} {height}\" role=\"img\">", SIZE.0);
    for (n, (name, value, words)) in rows.iter().enumerate() {
        let y = n as f64 * HEIGHT + 2.0;
        let width = (value / top * 360.0).max(1.0);
        let (name, words) = (escape(name), escape(words));
        let _ = write!(
            out,
            "<text x=\"150\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"bar c1\" x=\"160\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"18\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{words}</text>",
            y + 13.5,
            168.0 + width,
            y + 13.5
        );
    }
    out + "</svg>"
}

/// One row of a chart of ranges.
pub(crate) struct Range {
    pub(crate) name: String,
    /// In rising order: where the bar begins, where it ends, and where the line behind it ends. One
    /// that is not finite stands at the end of the axis.
    pub(crate) points: [f64; 3],
    /// What is told when it is pointed at.
    pub(crate) words: String,
}

/// Bars over a common logarithmic axis, each with a line to its largest value.
pub(crate) fn ranges(rows: &[Range], words: impl Fn(f64) -> String) -> String {
    const HEIGHT: f64 = 24.0;
    let values = || rows.iter().flat_map(|row| row.points).filter(|v| v.is_finite() && *v > 0.0);
    let (Some(low), Some(high)) = (values().reduce(f64::min), values().reduce(f64::max)) else {
        return String::new();
    };
    let axis = Axis::logarithmic(low, high, "", words);
    let bottom = rows.len() as f64 * HEIGHT + 4.0;
    let mut out = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\">", SIZE.0, bottom + 20.0);
    for (n, (value, words)) in axis.marks.iter().enumerate() {
        let at = across(axis.place(*value));
        // The last one would stand half outside.
        let anchor = if n + 1 == axis.marks.len() { "end" } else { "middle" };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            bottom + 15.0,
            escape(words)
        );
    }
    for (n, row) in rows.iter().enumerate() {
        let top = n as f64 * HEIGHT + 4.0;
        let [from, to, end] = row.points.map(|value| across(axis.place(value)));
        let (name, words) = (escape(&row.name), escape(&row.words));
        let _ = write!(
            out,
            "<g><title>{name}: {words}</title>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <line class=\"line c1\" x1=\"{from:.1}\" x2=\"{end:.1}\" y1=\"{m:.1}\" y2=\"{m:.1}\"/>\
             <rect class=\"bar c1\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\"/>\
             </g>",
            ROOM.0 - 6.0,
            top + 12.5,
            (to - from).max(2.0),
            m = top + 8.0
        );
    }
    out + "</svg><p class=\"legend\">bar: p50 to p99; line: to the longest</p>"
}

fn across(place: f64) -> f64 {
    ROOM.0 + place * (SIZE.0 - ROOM.0 - ROOM.1)
}

fn up(place: f64) -> f64 {
    SIZE.1 - ROOM.3 - place * (SIZE.1 - ROOM.2 - ROOM.3)
}

/// The opening tag, the grid and what is written beside it.
fn frame(x: &Axis, y: &Axis) -> String {
    let (width, height) = SIZE;
    let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for (value, words) in &y.marks {
        let at = up(y.place(*value));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            ROOM.0,
            width - ROOM.1,
            ROOM.0 - 6.0,
            at + 4.0,
            escape(words)
        );
    }
    for (n, (value, words)) in x.marks.iter().enumerate() {
        let at = across(x.place(*value));
        // The last one would stand half outside.
        let anchor = if n + 1 == x.marks.len() { "end" } else { "middle" };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            ROOM.2,
            height - ROOM.3,
            height - ROOM.3 + 16.0,
            escape(words)
        );
    }
    let _ = write!(
        out,
        "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"12\" y=\"{m}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 12 {m})\">{}</text>",
        across(0.5),
        height - 6.0,
        x.title,
        y.title,
        m = up(0.5)
    );
    out
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = "<p class=\"legend\">".to_string();
    for (name, colour) in names.zip(COLOURS.iter().cycle()) {
        let _ = write!(out, "<span class=\"key {colour}\"></span>{} ", escape(name));
    }
    out + "</p>"
}

/// Text that may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round() {
        let axis = Axis::linear(4321.0, "t", |v| v.to_string());
        assert_eq!((axis.high, axis.marks.len()), (5000.0, 6));
        assert!((axis.place(2500.0) - 0.5).abs() < 1e-9);
        let axis = Axis::logarithmic(3e-5, 0.02, "t", |v| v.to_string());
        assert!((axis.low - 1e-5).abs() < 1e-12 && (axis.high - 0.1).abs() < 1e-9);
        assert!((axis.place(1e-3) - 0.5).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(Axis::linear(0.0, "t", |v| v.to_string()).high > 0.0);
        assert!((round_step(0.3) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn ranges_share_an_axis() {
        let row = |name: &str, points| Range { name: name.into(), points, words: "w".into() };
        let rows = [row("a<", [1e-4, 1e-3, 1e-2]), row("b", [1e-3, 1e-2, f64::INFINITY])];
        let text = ranges(&rows, |v| v.to_string());
        assert_eq!(text.matches("<rect").count(), 2);
        assert!(text.contains("<title>a&lt;: w</title>") && text.contains("</svg>"), "{text}");
        // The one ends where the axis does.
        assert!(text.contains(&format!("x2=\"{:.1}\" y1=\"36.0\"", across(1.0))), "{text}");
        assert_eq!(ranges(&[], |v| v.to_string()), "");
    }

    #[test]
    fn charts_are_well_formed_and_hold_no_foreign_tag() {
        let (x, y) =
            (Axis::linear(3.0, "x", |v| v.to_string()), Axis::linear(3.0, "y", |v| v.to_string()));
        let line = Line { name: "<b>", points: vec![(0.0, 1.0), (3.0, 3.0)] };
        let text = lines(&x, &y, &[line], |a, b| format!("{a} {b}"));
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"));
        assert_eq!(text.matches("<circle").count(), 2);
        let text =
            bars(&[("a\"<".to_string(), 1.0, "1".to_string()), ("b".into(), 0.0, "0".into())]);
        assert_eq!(text.matches("<rect").count(), 2);
        assert!(text.contains("a&quot;&lt;") && text.ends_with("</svg>"));
        assert!(bars(&[]).ends_with("</svg>"));
    }
}
