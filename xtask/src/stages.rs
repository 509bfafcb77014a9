//! `cargo xtask bench stages`: the criterion benchmarks of what a write passes, beside the baselines that are kept.
//!
//! Times on shared machines drift by tens of percent, all of them together: nothing is judged here (instructions are, by
//! `cargo xtask instructions`), but a stage that stands out from the others is seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{cargo, root, target_dir};

/// The baselines that are kept.
const KEPT: &str = "benches/results/stages.md";
const BENCHES: [&str; 3] = ["store_apply", "store_index", "store_stages"];
const HEAD: &str = "# Baselines of the store's stages

Criterion's medians with their 95 % intervals; made by `cargo xtask bench stages --keep`, compared by `cargo xtask bench stages`.

| Benchmark | Median | Interval |
|---|---|---|
";

/// What a benchmark took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Time {
    median: f64,
    lower: f64,
    upper: f64,
}

/// Runs the benchmarks and shows what they took beside what is kept, or keeps it.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let keeps = match arguments {
        [] => false,
        ["--keep"] => true,
        _ => bail!("only --keep may follow"),
    };
    let results = target_dir().join("criterion");
    for bench in BENCHES {
        cargo(bench, &["bench", "--locked", "--workspace", "--bench", bench])?;
    }
    let mut times = BTreeMap::new();
    collect(&results, &mut times).with_context(|| format!("reading {}", results.display()))?;
    // Other benchmarks may have run here as well.
    times.retain(|name, _| name.starts_with("store_"));
    ensure!(!times.is_empty(), "no results in {}", results.display());
    let path = root().join(KEPT);
    if keeps {
        let rows = times.iter().map(|(name, time)| row(name, *time));
        return std::fs::write(&path, HEAD.to_owned() + &rows.collect::<String>()).context(KEPT);
    }
    let kept = std::fs::read_to_string(&path).with_context(|| format!("reading {KEPT}"))?;
    print!("{}", compared(&parse(&kept), &times));
    Ok(())
}

/// All results below a folder, by the benchmarks' names.
fn collect(dir: &Path, times: &mut BTreeMap<String, Time>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.ends_with("new") && path.join("estimates.json").exists() {
            let named: Value = serde_json::from_str(&std::fs::read_to_string(path.join("benchmark.json"))?)?;
            let name = named["full_id"].as_str().context("a benchmark without a name")?;
            let estimates: Value = serde_json::from_str(&std::fs::read_to_string(path.join("estimates.json"))?)?;
            let median = &estimates["median"];
            let bound = |which: &str| median["confidence_interval"][which].as_f64();
            let time = median["point_estimate"].as_f64().zip(bound("lower_bound")).zip(bound("upper_bound"));
            let ((median, lower), upper) = time.with_context(|| format!("{name} without a median"))?;
            times.insert(name.to_owned(), Time { median, lower, upper });
        } else if path.is_dir() {
            collect(&path, times)?;
        }
    }
    Ok(())
}

/// Nanoseconds as people read them.
fn shown(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} µs", n / 1e3),
        n => format!("{:.2} ms", n / 1e6),
    }
}

fn row(name: &str, time: Time) -> String {
    format!("| `{name}` | {} | {}–{} |\n", shown(time.median), shown(time.lower), shown(time.upper))
}

/// The medians that are kept.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (name, median) = cells.next().zip(cells.next())?;
        let (number, unit) = median.split_once(' ')?;
        let scale = match unit {
            "ns" => 1.0,
            "µs" => 1e3,
            "ms" => 1e6,
            _ => return None,
        };
        Some((name.trim_matches('`').to_owned(), number.parse::<f64>().ok()? * scale))
    });
    rows.collect()
}

fn compared(kept: &BTreeMap<String, f64>, times: &BTreeMap<String, Time>) -> String {
    let mut text = String::new();
    for (name, time) in times {
        let against = kept.get(name).map_or("not kept".to_owned(), |kept| format!("{:.2} of it", time.median / kept));
        // Writing into a string can't fail.
        let _ = writeln!(text, "{name:<40}{:>12}  {against}", shown(time.median));
    }
    for name in kept.keys().filter(|name| !times.contains_key(*name)) {
        let _ = writeln!(text, "{name:<40}{:>12}  is kept and wasn't run", "-");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let time = |median: f64| Time { median, lower: median * 0.9, upper: median * 1.1 };
        let rows = [("store_log/memory/1", time(1234.5)), ("store_codec/x", time(12.25)), ("store_i/2", time(4.2e7))];
        let text = HEAD.to_owned() + &rows.map(|(name, time)| row(name, time)).concat();
        let kept = parse(&text);
        assert_eq!(kept.len(), rows.len(), "{text}");
        for (name, time) in rows {
            assert!((kept[name] / time.median - 1.0).abs() < 0.005, "{name}: {}", kept[name]);
        }
        let times = BTreeMap::from([("store_codec/x".to_owned(), time(24.5)), ("store_new".to_owned(), time(1.0))]);
        let text = compared(&kept, &times);
        assert!(text.contains("2.0") && text.contains("not kept") && text.contains("store_i/2"), "{text}");
    }
}
