//! Throughput and times over clients, keys, watchers and members, both programs.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::perform::Readings;
use super::report::{Report, spread};
use super::rows::place;

/// Rows that differ in one number, which is the abscissa.
const CURVES: [(&str, &str); 4] = [
    ("put", "clients that put"),
    ("keys", "keys, 256 clients"),
    ("watchers", "watchers of 1,000 writes/s"),
    ("members", "members, 256 clients"),
];
const PANEL: (u32, u32) = (500, 300);
const COLORS: [(&str, RGBColor); 2] = [("etcd", BLUE), ("ours", RED)];

type Line = Vec<(f64, f64)>;

/// Draws a line of panels for each curve of which there are at least two points; without any, nothing.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let curves: Vec<_> = CURVES.iter().filter(|(curve, _)| lines(report, curve, |r| r.p99)[0].len() > 1).collect();
    if curves.is_empty() {
        return Ok(());
    }
    let root = SVGBackend::new(path, (2 * PANEL.0, PANEL.1 * curves.len() as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(chart_error)?;
    let panels = root.split_evenly((curves.len(), 2));
    for ((curve, over), pair) in curves.iter().zip(panels.chunks(2)) {
        let done = if *curve == "watchers" { "events" } else { "puts" };
        panel(&pair[0], &format!("{done}/s over {over}"), &lines(report, curve, |r| r.per_second))?;
        panel(&pair[1], &format!("p99, ms, over {over}"), &lines(report, curve, |r| r.p99))?;
    }
    root.present().map_err(chart_error)
}

/// Medians of etcd's and ours.
fn lines(report: &Report, curve: &str, of: fn(&Readings) -> f64) -> [Line; 2] {
    let line = |ours: bool| -> Line {
        let rows = report.rows.iter().filter_map(|row| Some((place(&row.scenario.name, curve)?, row)));
        rows.filter_map(|(x, row)| Some((x, spread(if ours { &row.ours } else { &row.etcd }, of)?.0))).collect()
    };
    [line(false), line(true)]
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, lines: &[Line; 2]) -> Result<()> {
    let points = || lines.iter().flatten();
    let (left, right) = points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let top = points().fold(0.0_f64, |top, (_, y)| top.max(*y)).max(1.0) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d((left..right.max(left * 1.01)).log_scale(), 0.0..top)
        .map_err(chart_error)?;
    chart.configure_mesh().light_line_style(WHITE).draw().map_err(chart_error)?;
    for ((name, color), line) in COLORS.iter().zip(lines) {
        let color = *color;
        let drawn = chart.draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)).point_size(3));
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2));
        drawn.map_err(chart_error)?.label(*name).legend(legend);
    }
    let labels = chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw();
    labels.map_err(chart_error)
}

fn chart_error(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing the chart: {error}")
}
