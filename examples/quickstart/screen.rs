//! One calm screen: drawn in place on a terminal, a line now and then elsewhere.

use std::io::{Write, stdout};

use crate::{
    compare::{Comparison, Probe},
    events::Events,
    shop::Shop,
};

pub struct Screen {
    terminal: bool,
}

/// What there is to show.
pub struct Frame<'f> {
    pub shop: &'f Shop,
    pub events: &'f Events,
    pub comparison: &'f Comparison,
    pub probe: &'f Probe,
    pub source: &'f str,
    pub sink: &'f str,
    pub folder: &'f str,
}

/// The alternate screen, no cursor, and long lines cut off instead of wrapped.
const ALTERNATE_SCREEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const NORMAL_SCREEN: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Everything fits the smallest usual terminal, 24 lines of 80 columns: it never scrolls.
const LINES: usize = 23;

impl Screen {
    pub fn open(terminal: bool) -> Self {
        if terminal {
            print!("{ALTERNATE_SCREEN}");
        }
        Self { terminal }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub fn draw(&mut self, frame: &Frame<'_>) {
        if !self.terminal {
            println!(
                "written {}, events {}, copy {}, write to topic {}, write to copy {}",
                frame.shop.written(),
                frame.events.seen(),
                state(frame.comparison),
                frame.events.latency(),
                frame.probe.latency()
            );
            return;
        }
        let mut lines = vec![
            "pulsar-io-dynamodb quickstart                          Ctrl-C stops everything".to_string(),
            String::new(),
            "  DynamoDB      source          Pulsar              sink            DynamoDB".into(),
            format!("  orders   ──►  {:<10} ──►  orders-changes ──►  {:<10} ──►  orders-copy", short(frame.source), short(frame.sink)),
            String::new(),
            format!("  written   {:<6} {}", frame.shop.written(), frame.shop.counts()),
            format!("  events    {:<6} {} repeated", frame.events.seen(), frame.events.repeated()),
            format!(
                "  items     {:<6} in orders, {} in orders-copy: {}",
                frame.comparison.original,
                frame.comparison.copy,
                state(frame.comparison)
            ),
            String::new(),
            format!("  from the write until read from the topic   {}", frame.events.latency()),
            format!("  from the write until read from the copy    {}", frame.probe.latency()),
            String::new(),
            "  latest events".into(),
        ];
        lines.extend(frame.events.recent.iter().map(|event| format!("    {event}")));
        lines.resize(LINES - 4, String::new());
        lines.push(String::new());
        for (worker, health) in [("source", frame.source), ("sink", frame.sink)] {
            lines.push(if health == "ok" { String::new() } else { format!("  {worker}: {health}") });
        }
        lines.push(format!("  logs  {}/{{source,sink}}.log", frame.folder));
        // Each line is overwritten and its rest cleared: nothing flickers.
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        print!("\x1b[H{}\x1b[J", text.join("\r\n"));
        // A terminal that has gone away is noticed by its signal.
        let _ = stdout().flush();
    }

    pub fn close(&mut self) {
        if std::mem::take(&mut self.terminal) {
            print!("{NORMAL_SCREEN}");
            let _ = stdout().flush();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

fn state(comparison: &Comparison) -> String {
    match comparison.behind() {
        0 => "equal".into(),
        behind => format!("{behind} on the way"),
    }
}

fn short(health: &str) -> String {
    if health == "ok" || health == "starting" { health.to_owned() } else { "in trouble".into() }
}
