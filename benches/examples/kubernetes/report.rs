//! What a run found: a table for people, and a chart over time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::disturb::{Disturbance, Kind};
use super::measure::Sample;

/// Everything that is shown of a run.
pub(crate) struct Report {
    pub(crate) store: String,
    pub(crate) took: Duration,
    pub(crate) nodes: usize,
    pub(crate) samples: Vec<Sample>,
    pub(crate) disturbances: Vec<Disturbance>,
    pub(crate) unready: Vec<Duration>,
    /// Lines of figures.
    pub(crate) facts: Vec<String>,
    /// Why requests were made again.
    pub(crate) again: BTreeMap<String, u64>,
    /// Warnings and errors in the apiserver's log, by kind.
    pub(crate) log: BTreeMap<String, u64>,
    pub(crate) failures: Vec<String>,
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// The quantile of values, by rank.
fn quantile(values: impl Iterator<Item = f64>, quantile: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let rank = (quantile * (values.len().saturating_sub(1)) as f64).round() as usize;
    values.get(rank).copied().unwrap_or(0.0)
}

impl Report {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> Result<String> {
        let mut out = String::new();
        writeln!(out, "{}, {:.0} min, {} nodes", self.store, self.took.as_secs_f64() / 60.0, self.nodes)?;
        writeln!(out, "\n| | Median | Highest |\n|---|---|---|")?;
        self.row(&mut out, "Requests to the apiserver, 1/s", |s| s.requests)?;
        self.row(&mut out, "Its requests to the store, 1/s", |s| s.store_requests)?;
        self.row(&mut out, "Their p50, ms", |s| s.store_p50 * 1000.0)?;
        self.row(&mut out, "Their p99, ms", |s| s.store_p99 * 1000.0)?;
        let most = |of: &[u64]| mib(of.iter().copied().max().unwrap_or(0)) as f64;
        self.row(&mut out, "Largest member's memory, MiB", |s| most(&s.resident))?;
        self.row(&mut out, "Largest member's disk, MiB", |s| most(&s.disk))?;
        self.row(&mut out, "Largest member's database, MiB", |s| most(&s.db_size))?;
        self.row(&mut out, "Of it used, MiB", |s| most(&s.db_used))?;
        self.row(&mut out, "Apiserver's memory, MiB", |s| mib(s.apiserver) as f64)?;
        writeln!(out, "\n| Disturbance | Times | Settled after, median | Longest |\n|---|---|---|---|")?;
        let mut kinds: Vec<Kind> = Vec::new();
        for disturbance in &self.disturbances {
            if !kinds.contains(&disturbance.kind) {
                kinds.push(disturbance.kind);
            }
        }
        for kind in kinds {
            let of: Vec<f64> =
                self.disturbances.iter().filter(|d| d.kind == kind).map(|d| d.settled.as_secs_f64()).collect();
            let (median, longest) = (quantile(of.iter().copied(), 0.5), quantile(of.iter().copied(), 1.0));
            writeln!(out, "| {} | {} | {median:.1} s | {longest:.1} s |", kind.name(), of.len())?;
        }
        writeln!(out)?;
        let longest = self.unready.iter().max().copied().unwrap_or_default();
        let all: Duration = self.unready.iter().sum();
        writeln!(
            out,
            "- apiserver not ready {} times, {:.0} s together, {:.1} s at most",
            self.unready.len(),
            all.as_secs_f64(),
            longest.as_secs_f64()
        )?;
        for fact in &self.facts {
            writeln!(out, "- {fact}")?;
        }
        for (why, count) in &self.again {
            writeln!(out, "- made again {count} times: {why}")?;
        }
        for (kind, count) in &self.log {
            writeln!(out, "- kube-apiserver.log, {count} times: {kind}")?;
        }
        for failure in &self.failures {
            writeln!(out, "- FAILED: {failure}")?;
        }
        Ok(out)
    }

    fn row(&self, out: &mut String, name: &str, value: impl Fn(&Sample) -> f64) -> Result<()> {
        let (median, highest) =
            (quantile(self.samples.iter().map(&value), 0.5), quantile(self.samples.iter().map(&value), 1.0));
        let digits = usize::from(median < 10.0 && highest < 1000.0);
        writeln!(out, "| {name} | {median:.digits$} | {highest:.digits$} |")?;
        Ok(())
    }

    /// Draws memory, requests and their times over minutes, with what disturbed them.
    pub(crate) fn chart(&self, path: &Path) -> Result<()> {
        let root = SVGBackend::new(path, (1000, 900)).into_drawing_area();
        root.fill(&WHITE).map_err(chart_error)?;
        let parts = root.split_evenly((3, 1));
        let series = |of: &dyn Fn(&Sample) -> f64| -> Vec<(f64, f64)> {
            self.samples.iter().map(|s| (s.at.as_secs_f64() / 60.0, of(s))).collect()
        };
        let member = |at: usize| series(&move |s: &Sample| mib(s.resident[at]) as f64);
        let title = format!("{}: memory of each member, MiB", self.store);
        self.panel(&parts[0], &title, &[("m1", member(0)), ("m2", member(1)), ("m3", member(2))])?;
        let requests =
            [("to the apiserver", series(&|s| s.requests)), ("from it to the store", series(&|s| s.store_requests))];
        self.panel(&parts[1], "requests, 1/s", &requests)?;
        let times = [("p99", series(&|s| s.store_p99 * 1000.0)), ("p50", series(&|s| s.store_p50 * 1000.0))];
        self.panel(&parts[2], "apiserver's requests to the store, ms; minutes below", &times)?;
        root.present().map_err(chart_error)?;
        Ok(())
    }

    fn panel(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        title: &str,
        lines: &[(&str, Vec<(f64, f64)>)],
    ) -> Result<()> {
        let end = (self.took.as_secs_f64() / 60.0).max(0.1);
        let top = quantile(lines.iter().flat_map(|(_, line)| line.iter().map(|(_, y)| *y)), 1.0).max(1.0) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .caption(title, ("sans-serif", 16))
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end, 0.0..top)
            .map_err(chart_error)?;
        chart.configure_mesh().light_line_style(WHITE).draw().map_err(chart_error)?;
        for (at, color) in self.marks() {
            let mark = PathElement::new(vec![(at, 0.0), (at, top)], color.mix(0.5));
            chart.draw_series([mark]).map_err(chart_error)?;
        }
        for (number, (name, line)) in lines.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            let drawn = chart.draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)));
            let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2));
            drawn.map_err(chart_error)?.label(*name).legend(legend);
        }
        for (name, color) in [("kill", RED), ("stop", MAGENTA), ("other disturbance", CYAN), ("compaction", GREEN)] {
            let legend = move |(x, y)| PathElement::new(vec![(x + 8, y - 5), (x + 8, y + 5)], color);
            // Without points: only the legend's entry.
            let drawn = chart.draw_series(LineSeries::new(std::iter::empty::<(f64, f64)>(), color));
            drawn.map_err(chart_error)?.label(name).legend(legend);
        }
        let labels = chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.7))
            .draw();
        labels.map_err(chart_error)
    }

    /// Disturbances and compactions, in minutes.
    fn marks(&self) -> Vec<(f64, RGBColor)> {
        let color = |kind: Kind| match kind {
            Kind::KillLeader | Kind::KillFollower => RED,
            Kind::StopLeader | Kind::StopFollower => MAGENTA,
            Kind::MoveLeader | Kind::Defragment | Kind::Snapshot | Kind::Replace => CYAN,
        };
        let minutes = |at: Duration| at.as_secs_f64() / 60.0;
        let disturbances = self.disturbances.iter().map(|d| (minutes(d.at), color(d.kind)));
        let compactions = self.samples.windows(2).filter(|pair| pair[1].compacted > pair[0].compacted);
        disturbances.chain(compactions.map(|pair| (minutes(pair[1].at), GREEN))).collect()
    }
}

fn chart_error(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing the chart: {error}")
}
