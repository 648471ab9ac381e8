//! Pure: the tests of significance that verdicts stand on. Chi-square for shares, Mann-Whitney for
//! two series of measurements. Used by `shares`, `compare` and `rounds`.

/// Chance that counts drawn by `expected` shares deviate at least as much as `counts` (Pearson's
/// chi-square). `None` with fewer than two classes, or one that is expected and never drawn from.
pub fn chi_square(counts: &[u64], expected: &[f64]) -> Option<(f64, f64)> {
    let all = counts.iter().sum::<u64>() as f64;
    let weights: f64 = expected.iter().sum();
    let classes = counts.len();
    if classes < 2 || classes != expected.len() || all == 0.0 || weights <= 0.0 {
        return None;
    }
    let mut sum = 0.0;
    for (&count, share) in counts.iter().zip(expected) {
        let due = all * share / weights;
        if due <= 0.0 {
            if count > 0 {
                return Some((f64::INFINITY, 0.0));
            }
            continue;
        }
        sum += (count as f64 - due).powi(2) / due;
    }
    let free = expected.iter().filter(|&&share| share > 0.0).count().saturating_sub(1);
    if free == 0 {
        return None;
    }
    Some((sum, upper_gamma(free as f64 / 2.0, sum / 2.0)))
}

/// Chance that two shares of one population, each a part of a whole, differ at least as much as
/// these (chi-square of their table with Yates's correction, so that few cases show nothing).
/// `None` when one is of nothing.
pub fn two_shares(a: (u64, u64), b: (u64, u64)) -> Option<f64> {
    let [(x, n), (y, m)] = [a, b].map(|(part, whole)| (part as f64, whole as f64));
    if n <= 0.0 || m <= 0.0 {
        return None;
    }
    let (all, parts) = (n + m, x + y);
    let spread = parts * (all - parts) * n * m;
    if spread <= 0.0 {
        return Some(1.0);
    }
    let away = ((x * (m - y) - y * (n - x)).abs() - all / 2.0).max(0.0);
    Some(upper_gamma(0.5, all * away * away / spread / 2.0))
}

/// The regularised upper incomplete gamma function Q(a, x): by its series below a + 1, by a
/// continued fraction (Lentz) above.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..1000 {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        return (1.0 - sum * scale).clamp(0.0, 1.0);
    }
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut h = d;
    for n in 1..1000 {
        let n = f64::from(n);
        let step = -n * (n - a);
        b += 2.0;
        d = step * d + b;
        d = 1.0 / if d.abs() < TINY { TINY } else { d };
        c = b + step / c;
        c = if c.abs() < TINY { TINY } else { c };
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (h * scale).clamp(0.0, 1.0)
}

/// ln Γ(x) for x > 0 (Stirling's series, after raising x to 8).
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

/// Two-sided chance that two series of one distribution differ in rank at least as much as these
/// (Mann and Whitney's U, normal approximation with ties and continuity corrected). `None` with
/// fewer than [`LEAST`] values on a side.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < LEAST || b.len() < LEAST {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        a.iter().map(|&x| (x, true)).chain(b.iter().map(|&x| (x, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut ranks, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let same = all[at..].iter().take_while(|(x, _)| *x == all[at].0).count();
        // Equal values share the mean of their ranks, which count from 1.
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        ranks += rank * all[at..at + same].iter().filter(|(_, of_a)| *of_a).count() as f64;
        ties += (same as f64).powi(3) - same as f64;
        at += same;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let u = ranks - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return Some(1.0);
    }
    let away = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    Some(upper_gamma(0.5, away * away / 2.0))
}

/// Values a side that Mann and Whitney's test needs here.
pub const LEAST: usize = 5;

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_two() {
        // (|15 · 95 - 5 · 85| - 100)² · 200 / (20 · 180 · 100 · 100) is 4.5, which is exceeded by
        // 3.389 % of chi-square's distribution with one degree of freedom.
        let p = two_shares((15, 100), (5, 100)).unwrap();
        assert!((p - 0.033_89).abs() < 1e-5, "{p}");
        assert!(two_shares((0, 1000), (3, 1000)).unwrap() > 0.1);
        assert!(two_shares((0, 1000), (1000, 1000)).unwrap() < 1e-9);
        assert_eq!(two_shares((0, 10), (0, 10)), Some(1.0));
        assert_eq!(two_shares((0, 0), (1, 10)), None);
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-6, "{got} is not {want}");
    }

    #[test]
    fn chi_square_of_known_tables() {
        // Values of the usual tables, for one, three and a hundred degrees of freedom.
        near(upper_gamma(0.5, 3.841_459 / 2.0), 0.05);
        near(upper_gamma(1.5, 11.344_867 / 2.0), 0.01);
        near(upper_gamma(50.0, 124.342_113 / 2.0), 0.05);
        let (sum, p) = chi_square(&[60, 40], &[1.0, 1.0]).unwrap();
        near(sum, 4.0);
        near(p, 0.045_500_264);
        assert_eq!(chi_square(&[10], &[1.0]), None);
        assert_eq!(chi_square(&[10, 1], &[1.0, 0.0]), Some((f64::INFINITY, 0.0)));
        assert_eq!(chi_square(&[10, 0], &[1.0, 0.0]), None);
        near(chi_square(&[25, 75], &[1.0, 3.0]).unwrap().1, 1.0);
    }

    #[test]
    fn mann_whitney_of_known_series() {
        let a: Vec<f64> = (0..10).map(f64::from).collect();
        let b: Vec<f64> = (10..20).map(f64::from).collect();
        // U = 0, mean 50, variance 175: z = 49.5 / √175.
        near(mann_whitney(&a, &b).unwrap(), 0.000_182_671);
        near(mann_whitney(&a, &a).unwrap(), 1.0);
        near(mann_whitney(&[1.0; 6], &[1.0; 6]).unwrap(), 1.0);
        assert_eq!(mann_whitney(&a[..4], &b), None);
        // With ties; R's wilcox.test(x, y, exact = FALSE) gives the same.
        let (x, y) = ([1.0, 2.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let p = mann_whitney(&x, &y).unwrap();
        assert!((0.05..0.09).contains(&p), "{p}");
    }

    #[test]
    fn medians() {
        near(median(&[3.0, 1.0, 2.0]), 2.0);
        near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        near(median(&[]), 0.0);
    }
}
