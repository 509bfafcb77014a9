//! The list of tests that are left out: one a line, with the reason.
//!
//! `suite/Test: reason`, where one `*` stands for anything; `suite/Test/part: reason` for a part, which runs with the
//! rest and may fail; `folder/file.go: reason` for a file that isn't built.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// As in the list.
    pub(super) what: String,
    pub(super) reason: String,
}

impl Skipped {
    pub(super) fn file(&self) -> Option<&str> {
        Some(self.what.as_str()).filter(|what| what.ends_with(".go"))
    }

    /// Whether it leaves the whole of a test out.
    pub(super) fn is_whole(&self, suite: &str, test: &str) -> bool {
        self.is(&format!("{suite}/{test}"))
    }

    /// Whether it names this test or part.
    pub(super) fn is(&self, name: &str) -> bool {
        match self.what.split_once('*') {
            Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
            None => name == self.what,
        }
    }
}

fn parse(text: &str) -> Result<Vec<Skipped>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = |line: &str| {
        let (what, reason) = line.split_once(": ").with_context(|| format!("no reason is given: {line:?}"))?;
        Ok(Skipped { what: what.to_owned(), reason: reason.to_owned() })
    };
    lines.map(line).collect()
}

pub(super) fn read(path: &Path) -> Result<Vec<Skipped>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text)
}

/// A line that names nothing would hide a test that came under another name.
pub(super) fn check_known(listed: &[Skipped], tests: &[String], etcd: &Path) -> Result<()> {
    // Parts are known only when they run: their tests are.
    let is_known = |entry: &Skipped| match entry.what.split('/').collect::<Vec<_>>().as_slice() {
        _ if entry.file().is_some() => !etcd.join(&entry.what).exists(),
        [suite, test, _, ..] => tests.contains(&format!("{suite}/{test}")),
        _ => tests.iter().any(|test| entry.is(test)),
    };
    let unknown: Vec<&str> = listed.iter().filter(|entry| !is_known(entry)).map(|e| e.what.as_str()).collect();
    if unknown.is_empty() { Ok(()) } else { bail!("there are no such tests to be left out: {}", unknown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_tests_and_say_why() {
        let listed = parse("# said\n\ne2e/TestV2*: there is no v2 API\ne2e/TestA: why: so\n").expect("a list");
        assert_eq!(listed[1], Skipped { what: "e2e/TestA".to_owned(), reason: "why: so".to_owned() });
        assert!(listed[0].is_whole("e2e", "TestV2Put") && !listed[0].is_whole("clientv3", "TestV2Put"));
        assert!(!listed[1].is_whole("e2e", "TestAB"));
        let middle = &parse("e2e/TestA*Z: why").expect("a list")[0];
        assert!(middle.is("e2e/TestAbcZ") && !middle.is("e2e/TestAbc"));
        assert!(parse("e2e/TestA").is_err());
    }

    #[test]
    fn lines_must_name_something() {
        let nowhere = Path::new("/nonexistent");
        let tests = ["e2e/TestA".to_owned()];
        for known in ["e2e/TestA: x", "e2e/Test*: x", "e2e/TestA/part: x", "integration/gone.go: x"] {
            check_known(&parse(known).expect("a list"), &tests, nowhere).expect(known);
        }
        for unknown in ["e2e/TestB: x", "clientv3/Test*: x", "e2e/TestB/part: x"] {
            check_known(&parse(unknown).expect("a list"), &tests, nowhere).expect_err(unknown);
        }
    }
}
