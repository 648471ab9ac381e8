//! RFC 9113, RFC 8441 and RFC 7541 case by case, by a client that works frame by frame
//! (`conformance.py`).

use std::collections::HashSet;

use crate::process::{python, run};
use crate::{Front, Origin};
const SCRIPT: &str = "tests/h2/conformance.py";

/// No two cases have one name, and there are as many as there should be.
#[test]
fn cases_are_listed() {
    assert!(listed().len() >= 60);
}

/// Every case is right, and none is left out.
#[test]
fn every_case_is_right() {
    let member = Origin::start();
    let front = Front::start(member.addr, "");
    let (code, out, err) = run(python(SCRIPT).arg(front.addr.port().to_string()));
    let wrong: Vec<&str> = out.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{err}");
    let right: HashSet<String> =
        out.lines().filter_map(|line| line.strip_prefix("ok ")).map(str::to_owned).collect();
    assert_eq!((right, code), (listed(), Some(0)), "{err}");
}

/// Every case's name.
fn listed() -> HashSet<String> {
    let (code, list, err) = run(python(SCRIPT).arg("--list"));
    assert_eq!(code, Some(0), "{err}");
    let cases: HashSet<String> = list.lines().map(str::to_owned).collect();
    assert_eq!(cases.len(), list.lines().count(), "two cases have one name");
    cases
}
