//! What strace tells of a log's files.

use std::collections::HashMap;

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Done {
    /// These bytes, as strace shows them: what can be printed stands for itself.
    Wrote(String),
    Synced,
}

/// When it began and ended, in microseconds.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    file: String,
    done: Done,
    begun: u64,
    ended: u64,
}

/// All that was done to a log's files, in the order in which it ended.
#[derive(Debug, Default)]
pub(super) struct Trace(Vec<Step>);

/// Whether it is a file of the log: named by sixteen hexadecimal digits.
pub(super) fn is_segment(path: &str) -> bool {
    let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".log"));
    name.is_some_and(|stem| stem.len() == 16 && stem.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn micros(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + part.parse::<u64>().ok()?)
}

impl Trace {
    /// Reads the lines of `strace -f -y -ttt -T`. What failed, or was made up by strace itself, didn't happen.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        // Calls that another thread's line interrupted, by thread.
        let mut begun: HashMap<&str, (u64, String)> = HashMap::new();
        for line in text.lines() {
            let mut words = line.splitn(2, ' ');
            let (Some(thread), Some(rest)) = (words.next(), words.next()) else { continue };
            let Some((at, call)) = rest.trim_start().split_once(' ') else { continue };
            let Some(at) = micros(at) else { continue };
            if let Some(call) = call.strip_suffix("<unfinished ...>") {
                begun.insert(thread, (at, call.trim_end().to_owned()));
            } else if let Some((_, end)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
                if let Some((since, call)) = begun.remove(thread) {
                    steps.extend(step(&format!("{call}{end}"), since));
                }
            } else {
                steps.extend(step(call, at));
            }
        }
        steps.sort_by_key(|step| step.ended);
        Self(steps)
    }

    /// When a value was on the disk: with the first sync of its file that began after it had been written there.
    pub(super) fn durable(&self, value: &str) -> Option<u64> {
        let is_written = |step: &&Step| matches!(&step.done, Done::Wrote(bytes) if bytes.contains(value));
        let mut steps = self.0.iter();
        let written = steps.by_ref().find(is_written)?;
        let syncs =
            |step: &&Step| step.done == Done::Synced && step.file == written.file && step.begun >= written.ended;
        steps.find(syncs).map(|step| step.ended)
    }

    /// Syncs that began and ended in a time.
    pub(super) fn syncs_within(&self, (from, to): (u64, u64)) -> usize {
        let within = |step: &&Step| step.done == Done::Synced && step.begun >= from && step.ended <= to;
        self.0.iter().filter(within).count()
    }
}

/// Such as `pwrite64(9</log/0000000000000001.log>, "what"..., 4096, 0) = 4096 <0.000012>`.
fn step(call: &str, begun: u64) -> Option<Step> {
    let (name, rest) = call.split_once('(')?;
    let (file, rest) = rest.split_once('<')?.1.split_once('>')?;
    let (what, result) = rest.rsplit_once(" = ")?;
    let (result, took) = result.trim_end_matches('>').rsplit_once(" <")?;
    let ended = begun + micros(took)?;
    // More than a number: an error, or made up.
    let result: u64 = result.trim().parse().ok()?;
    let done = match name {
        // Behind the bytes stand how many they are, and for the second the place.
        "write" | "pwrite64" if is_segment(file) => {
            let given = what.trim_end_matches(')').rsplit(", ").nth(usize::from(name == "pwrite64"));
            assert_eq!(given.and_then(|given| given.parse().ok()), Some(result), "not all was written: {call}");
            Done::Wrote(what.to_owned())
        }
        "fdatasync" if is_segment(file) => Done::Synced,
        _ => return None,
    };
    Some(Step { file: file.to_owned(), done, begun, ended })
}

const LOG: &str = "/m0/log/0000000000000001.log";

fn durable(lines: &[&str], value: &str) -> Option<u64> {
    Trace::parse(&lines.join("\n").replace("LOG", LOG)).durable(value)
}

#[test]
fn bytes_are_durable_with_the_sync_behind_them() {
    let lines = [
        r#"7 100.000010 pwrite64(9<LOG>, "\1one\0two\0", 12, 0) = 12 <0.000005>"#,
        "7 100.000030 fdatasync(9<LOG>) = 0 <0.000400>",
        r#"7 100.001000 pwrite64(9<LOG>, "\1three", 12, 4096) = 12 <0.000005>"#,
        "7 100.001030 fdatasync(10</m0/log/0000000000000002.log>) = 0 <0.000400>",
    ];
    assert_eq!(durable(&lines, "one"), Some(100_000_430));
    assert_eq!(durable(&lines, "two"), Some(100_000_430));
    assert_eq!(durable(&lines, "three"), None, "it was written, and another file synced");
    assert_eq!(durable(&lines, "four"), None, "it wasn't written");
}

#[test]
fn a_sync_that_began_before_or_failed_does_not_count() {
    let lines = [
        "8 100.000005 fdatasync(9<LOG> <unfinished ...>",
        r#"7 100.000010 write(9<LOG>, "one", 3) = 3 <0.000005>"#,
        "8 100.000300 <... fdatasync resumed>) = 0 <0.000295>",
        "7 100.000400 fdatasync(9<LOG>) = -1 EIO (Input/output error) <0.000005>",
        "7 100.000500 fdatasync(9<LOG>) = 0 (INJECTED) <0.000005>",
        "7 100.000600 fdatasync(10</m0/log/000012.log>) = 0 <0.000005>",
    ];
    assert_eq!(durable(&lines, "one"), None);
    let resumed =
        ["7 100.000700 fdatasync(9<LOG> <unfinished ...>", "7 100.000900 <... fdatasync resumed>) = 0 <0.000150>"];
    assert_eq!(durable(&[&lines[..], &resumed].concat(), "one"), Some(100_000_850));
}
