//! Medians, as a table and as JSON.

use std::{fs, path::Path};

use serde_json::json;

use crate::{measure::Figure, system::System};

pub fn write(figures: &[Figure], file: &Path) {
    let mut rows: Vec<&str> = Vec::new();
    for figure in figures {
        if !rows.contains(&&*figure.what) {
            rows.push(&figure.what);
        }
    }
    let mut systems: Vec<System> = figures.iter().map(|figure| figure.system).collect();
    systems.sort_unstable();
    systems.dedup();
    let names: Vec<&str> = systems.iter().map(|system| system.name()).collect();
    println!("\n| figure (median; least – most) | {} |\n|---|{}", names.join(" | "), "---|".repeat(systems.len()));
    for row in rows {
        let cells: Vec<String> = systems.iter().map(|system| cell(figures, *system, row)).collect();
        println!("| {row} | {} |", cells.join(" | "));
    }
    let memory = |name| fs::read_to_string("/proc/meminfo").ok()?.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let machine = json!({"cores": std::thread::available_parallelism().map_or(0, usize::from), "memory": memory("MemTotal:")});
    let text = format!("{:#}\n", json!({"machine": machine, "figures": figures}));
    fs::write(file, text).expect("the results can be written");
    println!("\nEach round's figures: {}", file.display());
}

fn cell(figures: &[Figure], system: System, what: &str) -> String {
    let of_both = figures.iter().filter(|figure| figure.system == system && figure.what == what);
    let mut values: Vec<f64> = of_both.map(|figure| figure.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return "–".into() };
    let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    if values.len() == 1 || least == most {
        number(middle)
    } else {
        format!("{} ({} – {})", number(middle), number(*least), number(*most))
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else if value.abs() < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    }
}
