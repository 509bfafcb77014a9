//! Label selectors: `a=b,c!=d,x in (a,b),y notin (c),z,!w,n>3`.
//!
//! Source: apimachinery `pkg/labels/selector.go`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::names;

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted.
    values: Vec<String>,
}

impl Requirement {
    fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        if let Some(objection) = names::qualified_name(key).first() {
            return Err(SelectorError(format!("key: Invalid value: {key:?}: {objection}")));
        }
        for value in &values {
            if let Some(objection) = names::label_value(value).first() {
                return Err(SelectorError(format!("values[0][{key}]: Invalid value: {value:?}: {objection}")));
            }
        }
        let whole = |v: &String| v.parse::<i64>().is_ok();
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && !values.iter().all(whole) {
            return Err(SelectorError(
                "values[0]: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer".to_owned(),
            ));
        }
        values.sort();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|v| self.values.contains(v));
        let compare = |greater: bool| {
            let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
            let have = value.and_then(|v| v.parse::<i64>().ok());
            matches!((have, bound), (Some(h), Some(b)) if if greater { h > b } else { h < b })
        };
        match self.operator {
            Operator::Equals | Operator::In => listed(),
            Operator::NotEquals | Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(true),
            Operator::LessThan => compare(false),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A selector: every requirement must hold. One without requirements matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

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

    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

/// Reads a selector's text form.
///
/// # Errors
/// [`SelectorError`] says what is wrong where.
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    loop {
        lexer.skip_space();
        if lexer.rest.is_empty() {
            if text.trim_end().ends_with(',') {
                return Err(SelectorError("found '', expected: identifier after ','".to_owned()));
            }
            break;
        }
        requirements.push(lexer.requirement()?);
        lexer.skip_space();
        if lexer.rest.is_empty() {
            break;
        }
        if !lexer.take(",") {
            return Err(SelectorError(format!("found '{}', expected: ',' or 'end of string'", lexer.word())));
        }
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Selector(requirements))
}

/// Reads a `meta/v1` LabelSelector object.
///
/// # Errors
/// [`SelectorError`] for an unknown operator, a bad key or value, or values that don't fit the operator.
pub fn from_label_selector(selector: &Value) -> Result<Selector, SelectorError> {
    let mut requirements = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        requirements.push(Requirement::new(key, Operator::In, vec![value.as_str().unwrap_or("").to_owned()])?);
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression.get("key").and_then(Value::as_str).unwrap_or("");
        let values: Vec<String> = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or("") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
        };
        match (operator, values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => {
                return Err(SelectorError(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned(),
                ));
            }
            (Operator::Exists | Operator::DoesNotExist, false) => {
                return Err(SelectorError(
                    "values: Invalid value: values set must be empty for exists and does not exist".to_owned(),
                ));
            }
            _ => requirements.push(Requirement::new(key, operator, values)?),
        }
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Selector(requirements))
}

struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The next run of characters that aren't special.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '>', '<']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            self.skip_space();
            let key = self.word();
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        let key = self.word();
        if key.is_empty() {
            let found = self.rest.chars().next().unwrap_or(' ');
            return Err(SelectorError(format!("found '{found}', expected: !, identifier, or 'end of string'")));
        }
        self.skip_space();
        let operator = if self.rest.is_empty() || self.rest.starts_with(',') {
            return Requirement::new(key, Operator::Exists, Vec::new());
        } else if self.take("==") || self.take("=") {
            Operator::Equals
        } else if self.take("!=") {
            Operator::NotEquals
        } else if self.take(">") {
            Operator::GreaterThan
        } else if self.take("<") {
            Operator::LessThan
        } else {
            match self.word() {
                "in" => Operator::In,
                "notin" => Operator::NotIn,
                other => {
                    return Err(SelectorError(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")));
                }
            }
        };
        self.skip_space();
        let values =
            if matches!(operator, Operator::In | Operator::NotIn) { self.set()? } else { vec![self.word().to_owned()] };
        Requirement::new(key, operator, values)
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take("(") {
            return Err(SelectorError(format!("found '{}' expected: '('", self.word())));
        }
        let mut values = Vec::new();
        loop {
            self.skip_space();
            values.push(self.word().to_owned());
            self.skip_space();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(SelectorError(format!("found '{}', expected: ',' or ')'", self.word())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
