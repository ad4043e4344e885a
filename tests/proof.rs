//! `docs/proof.md` is true: each number has its row, and each test that it names is there.

use std::{collections::BTreeSet, fs, path::Path};

use super::architecture::rust_files;

/// A row's first cell and its last.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    cells.filter_map(|line| Some((line.split_once(" | ")?.0, line.rsplit_once(" | ")?.1))).collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|name| !name.contains('/'))
}

#[test]
fn every_number_has_a_row_and_every_named_test_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/proof.md")).expect("readable");
    let rows = rows(&page);
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).filter(|number| *number != "no.").collect();
    let wanted = (1..=26).map(|n| format!("W{n}")).chain((1..=20).map(|n| format!("R{n}"))).chain((1..=29).map(|n| n.to_string()));
    let wanted: Vec<_> = wanted.chain((1..=50).map(|n| format!("sink {n}"))).collect();
    assert_eq!(numbers, wanted);

    let code: Vec<String> = ["src", "tests"].into_iter().flat_map(rust_files).map(|(_, text)| text).collect();
    let is_test = |name: &str| code.iter().any(|text| text.contains(&format!("fn {name}(")));
    let missing: BTreeSet<_> = rows.iter().flat_map(|(_, cell)| quoted(cell)).filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "docs/proof.md names tests that are not there: {missing:?}");

    for (number, cell) in rows.iter().filter(|(number, _)| *number != "no.") {
        let named = |name: &str| name.split('_').any(|part| part.eq_ignore_ascii_case(number));
        if number.starts_with('W') && *number != "W21" {
            assert!(quoted(cell).any(named), "no test is named after {number}: {cell}");
        }
        assert!(quoted(cell).next().is_some() || cell.contains("later") || cell.contains("this page"), "{number} is not shown: {cell}");
    }
}
