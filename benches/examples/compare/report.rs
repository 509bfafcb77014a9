//! What came out, as Markdown.

use std::fmt::Write as _;

use anyhow::Result;

use super::perform::Readings;
use super::rows::{Figure, Scenario};

/// All repetitions of a row.
pub(crate) struct Compared {
    pub(crate) scenario: Scenario,
    pub(crate) etcd: Vec<Readings>,
    pub(crate) ours: Vec<Readings>,
}

/// Everything that is shown.
#[derive(Default)]
pub(crate) struct Report {
    /// Lines about machine and programs.
    pub(crate) facts: Vec<String>,
    pub(crate) rows: Vec<Compared>,
    pub(crate) failures: Vec<String>,
}

/// Median, lowest, highest.
pub(crate) fn spread(readings: &[Readings], of: impl Fn(&Readings) -> f64) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = readings.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
            groups.join(",")
        }
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn cell(spread: Option<(f64, f64, f64)>, unit: &str) -> String {
    let Some((median, low, high)) = spread else { return "failed".to_owned() };
    let unit = if unit.starts_with('/') { unit.to_owned() } else { format!(" {unit}") };
    format!("{}{unit} ({}–{})", number(median), number(low), number(high))
}

impl Compared {
    /// How many times as good as etcd's.
    fn ratio(&self, figure: &Figure) -> Option<f64> {
        let ((etcd, ..), (ours, ..)) = (spread(&self.etcd, figure.of)?, spread(&self.ours, figure.of)?);
        Some(if figure.more_is_better { ours / etcd } else { etcd / ours })
    }

    fn reached(&self, figure: &Figure) -> bool {
        self.ratio(figure).is_some_and(|ratio| ratio >= figure.must)
    }
}

impl Report {
    pub(crate) fn all_reached(&self) -> bool {
        self.rows.iter().all(|row| row.scenario.figures.iter().all(|figure| row.reached(figure)))
    }

    pub(crate) fn markdown(&self) -> Result<String> {
        let mut out = String::from("# The store beside etcd\n\n");
        for fact in &self.facts {
            writeln!(out, "- {fact}")?;
        }
        writeln!(
            out,
            "\nMedian (lowest–highest). A ratio says how many times as good as etcd: of throughput the one, of times"
        )?;
        writeln!(
            out,
            "and memory the other way round. Three members unless the row says so; values of 1 KiB, keys of 32 bytes.\n"
        )?;
        writeln!(out, "| Row | etcd | ours | ratio | must | reached |\n|---|---|---|---|---|---|")?;
        for row in &self.rows {
            for figure in row.scenario.figures {
                let (etcd, ours) = (spread(&row.etcd, figure.of), spread(&row.ours, figure.of));
                let ratio = row.ratio(figure).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
                writeln!(
                    out,
                    "| {}: {} | {} | {} | {ratio} | {:.2} | {} |",
                    row.scenario.name,
                    figure.what,
                    cell(etcd, figure.unit),
                    cell(ours, figure.unit),
                    figure.must,
                    if row.reached(figure) { "yes" } else { "no" },
                )?;
            }
        }
        self.costs(&mut out)?;
        if !self.failures.is_empty() {
            writeln!(out, "\nFailed:\n")?;
            for failure in &self.failures {
                writeln!(out, "- {failure}")?;
            }
        }
        Ok(out)
    }

    /// What an operation cost whom; medians, etcd's before ours.
    fn costs(&self, out: &mut String) -> Result<()> {
        writeln!(
            out,
            "\nWhat an operation (or event) cost, etcd / ours, medians. CPU of all members together; writes that one sync"
        )?;
        writeln!(out, "of a member's log covers.\n")?;
        writeln!(out, "| Row | members, µs | client, µs | members, cores | writes a sync | sync p50, ms |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        let columns: [fn(&Readings) -> f64; 5] =
            [|r| r.cost.members_cpu, |r| r.client_cpu, |r| r.cost.cores, |r| r.cost.writes_per_sync, |r| r.cost.sync];
        for row in &self.rows {
            write!(out, "| {} |", row.scenario.name)?;
            for of in columns {
                let median = |readings| spread(readings, of).map_or("–".to_owned(), |(median, ..)| number(median));
                write!(out, " {} / {} |", median(&row.etcd), median(&row.ours))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
