//! Pure: lists of cores as the kernel writes them.

use std::collections::BTreeSet;

/// `0-1,4`, as the kernel prints it; `None` when it is something else.
pub fn parse(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        cores.extend(low.parse::<usize>().ok()?..=high.parse().ok()?);
    }
    Some(cores)
}

/// `0-1,4`.
pub fn render(cores: &BTreeSet<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let run = |&(a, b): &(usize, usize)| {
        if a == b { a.to_string() } else { format!("{a}-{b}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_printed() {
        assert_eq!(render(&parse("0-1,4,6-7\n").unwrap()), "0-1,4,6-7");
        assert_eq!(render(&parse("2").unwrap()), "2");
        assert_eq!(parse("a-b"), None);
        assert_eq!(parse(""), Some(BTreeSet::new()));
    }
}
