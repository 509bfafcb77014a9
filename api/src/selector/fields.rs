//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! Source: apimachinery `pkg/fields/selector.go`; `\`, `,` and `=` in values are escaped.

use std::fmt;

/// One comparison of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

/// A selector: every term must hold. One without terms matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

/// Why a selector can't be read; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl Selector {
    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields it names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.field.as_str())
    }

    /// The value that a field must have, if the selector says.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object is meant; `value` gives its fields' values.
    pub fn matches(&self, value: impl Fn(&str) -> String) -> bool {
        self.0.iter().all(|term| (value(&term.field) == term.value) == term.equal)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = |t: &Term| format!("{}{}{}", t.field, if t.equal { "=" } else { "!=" }, escape(&t.value));
        f.write_str(&self.0.iter().map(term).collect::<Vec<_>>().join(","))
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
}

/// Splits at commas that aren't escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            '=' | ',' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {c}")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Reads a selector's text form.
///
/// # Errors
/// [`SelectorError`] says what is wrong.
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut terms = Vec::new();
    for part in split(text) {
        if part.is_empty() {
            continue;
        }
        let operators = [("!=", false), ("==", true), ("=", true)];
        let found = operators
            .iter()
            .filter_map(|(op, equal)| Some((part.find(op)?, *op, *equal)))
            .min_by_key(|(at, op, _)| (*at, std::cmp::Reverse(op.len())));
        let Some((at, op, equal)) = found else {
            return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
        };
        terms.push(Term { field: part[..at].to_owned(), value: unescape(&part[at + op.len()..])?, equal });
    }
    terms.sort_by(|a, b| a.field.cmp(&b.field));
    Ok(Selector(terms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_and_match() {
        let selector = parse(r"status.phase!=Running,metadata.name==a\,b").expect("valid");
        assert_eq!(selector.to_string(), r"metadata.name=a\,b,status.phase!=Running");
        assert_eq!(selector.required("metadata.name"), Some("a,b"));
        assert!(selector.matches(|field| if field == "metadata.name" { "a,b".into() } else { "Pending".into() }));
        assert!(!selector.matches(|_| "Running".into()));
        assert!(parse("").expect("valid").is_everything());
        assert!(parse("nonsense").is_err());
        assert!(parse(r"a=b\c").is_err());
    }
}
