//! Pure: which algorithm bears which stickiness (tables 6-1 and 6-2, R6.1-M1 to R6.1-M9).

use crate::model::{Algorithm, Flavor, PersistenceKind};

/// A cell of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Yes,
    /// The two could stand together, but are not supported.
    No,
    /// The two have nothing to do with each other.
    NotApplicable,
}

use Cell::{No, NotApplicable as Na, Yes};

/// The columns: dedicated Layer 4, dedicated Layer 7, shared Layer 4, shared Layer 7.
type Row = (&'static str, [Cell; 4]);

/// Rows by algorithm, then by kind of stickiness.
const MATRIX: [[Row; 3]; 3] = [
    [
        ("R6.1-M1", [Yes, No, Yes, No]),
        ("R6.1-M2", [Na, Yes, Na, Yes]),
        ("R6.1-M3", [Na, No, Na, Yes]),
    ],
    [("R6.1-M4", [No, No, No, No]), ("R6.1-M5", [Na, No, Na, No]), ("R6.1-M6", [Na, No, Na, No])],
    [("R6.1-M7", [Na, No, Na, No]), ("R6.1-M8", [Na, No, Na, No]), ("R6.1-M9", [Na, No, Na, No])],
];

/// The cell and its row. QUIC_CID stands in no table: its pools have an affinity of their own.
pub(super) fn cell(
    algorithm: Algorithm,
    kind: &PersistenceKind,
    flavor: Flavor,
    layer7: bool,
) -> (Cell, &'static str) {
    let row = match algorithm {
        Algorithm::RoundRobin => 0,
        Algorithm::LeastConnections => 1,
        Algorithm::SourceIp => 2,
        Algorithm::QuicCid => return (Na, "R6.8-6"),
    };
    let line = match kind {
        PersistenceKind::SourceIp => 0,
        PersistenceKind::HttpCookie => 1,
        PersistenceKind::AppCookie(_) => 2,
    };
    let column = usize::from(flavor == Flavor::Shared) * 2 + usize::from(layer7);
    let found = MATRIX.get(row).and_then(|rows| rows.get(line));
    found
        .and_then(|(id, cells)| cells.get(column).map(|cell| (*cell, *id)))
        .unwrap_or((No, "R6.1-1"))
}
