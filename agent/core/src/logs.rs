//! A container's log as a runtime writes it.
//!
//! A line is `TIME STREAM TAG TEXT`; tag `P` says that its text is part of a longer one, which the next goes on with.
//! Source: CRI `api.proto` (log format), kubelet `kuberuntime/logs/logs.go`.

use std::collections::VecDeque;

/// One line of a log file: a line of the container's, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: &'a str,
    /// What was written, without its end.
    pub text: &'a [u8],
    /// More of it follows in the next.
    pub partial: bool,
}

/// Reads a line of a log file; `None` if it is none.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let _stream = fields.next()?;
    let tag = fields.next()?;
    Some(Line { time, text: fields.next().unwrap_or_default(), partial: tag == b"P" })
}

/// The last lines that a container wrote, each with all its parts.
///
/// `push` takes the log file's lines in order, `into_lines` gives those that are left.
#[derive(Debug)]
pub struct Tail {
    wanted: usize,
    /// Lines of the file.
    kept: VecDeque<Vec<u8>>,
    /// Lines of the container's that they make, the last one perhaps unfinished.
    whole: usize,
    /// The last one goes on.
    is_open: bool,
}

impl Tail {
    /// Of so many lines.
    #[must_use]
    pub fn new(wanted: usize) -> Self {
        Self { wanted, kept: VecDeque::new(), whole: 0, is_open: false }
    }

    /// The file's next line; what is none is passed over.
    pub fn push(&mut self, line: Vec<u8>) {
        let Some(partial) = parse(&line).map(|line| line.partial).filter(|_| self.wanted > 0) else { return };
        self.whole += usize::from(!self.is_open);
        self.is_open = partial;
        self.kept.push_back(line);
        if self.whole > self.wanted {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        self.whole -= 1;
        while let Some(line) = self.kept.pop_front() {
            if !parse(&line).is_some_and(|line| line.partial) {
                return;
            }
        }
    }

    /// The file's lines that make the last ones.
    pub fn into_lines(self) -> impl Iterator<Item = Vec<u8>> {
        self.kept.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use seeded_bugs::assert_noticed;

    #[test]
    fn lines_are_read_as_the_runtime_writes_them() {
        let line = parse(b"2026-01-01T00:00:00.5Z stdout P a b").expect("a line");
        assert_eq!((line.time, line.text, line.partial), ("2026-01-01T00:00:00.5Z", &b"a b"[..], true));
        let empty = parse(b"2026-01-01T00:00:00.5Z stderr F ").expect("a line");
        assert_eq!((empty.text, empty.partial), (&b""[..], false));
        assert!(parse(b"garbage").is_none());
    }

    fn last(wanted: usize, lines: &[&str]) -> Vec<String> {
        let mut tail = Tail::new(wanted);
        lines.iter().for_each(|line| tail.push(line.as_bytes().to_vec()));
        tail.into_lines().map(|line| String::from_utf8(line).expect("text")).collect()
    }

    #[test]
    fn a_line_in_parts_is_one_line() {
        let lines = ["t out P a", "t out F b", "t out P c", "t out F d", "t out P e", "t out F f"];
        assert_eq!(last(1, &lines), lines[4..]);
        assert_eq!(last(2, &lines), lines[2..]);
        assert_eq!(last(3, &lines), lines);
        assert_eq!(last(1, &lines[..5]), lines[4..5], "one that goes on");
        assert_eq!(last(0, &lines), [""; 0]);
    }

    fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let line = prop_oneof![
            4 => "t out [PF] [a-c]{0,2}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..12),
        ];
        prop::collection::vec(line, 0..20)
    }

    /// What putting lines together may get wrong.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Bug {
        /// A part is a line.
        PartsAreLines,
        /// What is none ends a line that goes on.
        NoneEndsALine,
    }

    /// All lines, put together from the beginning.
    fn whole(lines: &[Vec<u8>], bug: Option<Bug>) -> Vec<Vec<Vec<u8>>> {
        let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut goes_on = false;
        for line in lines {
            let Some(read) = parse(line) else {
                goes_on &= bug != Some(Bug::NoneEndsALine);
                continue;
            };
            if !goes_on {
                all.push(Vec::new());
            }
            goes_on = read.partial && bug != Some(Bug::PartsAreLines);
            all.last_mut().expect("one is begun").push(line.clone());
        }
        all
    }

    fn is_the_last_of_all((lines, wanted): (Vec<Vec<u8>>, usize), bug: Option<Bug>) -> Result<(), TestCaseError> {
        for (line, read) in lines.iter().filter_map(|line| Some((line, parse(line)?))) {
            prop_assert!(line.ends_with(read.text) && line.starts_with(read.time.as_bytes()));
        }
        let mut all = whole(&lines, bug);
        let mut tail = Tail::new(wanted);
        lines.into_iter().for_each(|line| tail.push(line));
        let expected = all.split_off(all.len().saturating_sub(wanted)).concat();
        prop_assert_eq!(tail.into_lines().collect::<Vec<_>>(), expected);
        Ok(())
    }

    proptest! {
        /// Against all lines, put together from the beginning.
        #[test]
        fn a_tail_is_the_last_of_all_lines(case in (lines(), 0_usize..6)) {
            is_the_last_of_all(case, None)?;
        }
    }

    /// Lines that begin or end elsewhere are found.
    #[test]
    fn a_wrong_line_is_noticed() {
        assert_noticed(&[Bug::PartsAreLines, Bug::NoneEndsALine], &(lines(), 0_usize..6), is_the_last_of_all);
    }
}
