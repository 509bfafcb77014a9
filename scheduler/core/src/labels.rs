//! Labels and what selects by them.
//!
//! Source: apimachinery `pkg/labels/selector.go`, `meta/v1` LabelSelectorAsSelector, component-helpers `nodeaffinity`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// Why a selector can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {key:?}: {objection}")]
pub struct SelectorError {
    key: String,
    objection: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
}

impl Requirement {
    /// The label is there and has this value. Not checked, like Go's `SelectorFromSet`.
    #[must_use]
    pub fn equals(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), operator: Operator::In(vec![value.to_owned()]) }
    }

    fn read(key: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        let objection = |text: String| SelectorError { key: key.to_owned(), objection: text };
        if let Some(text) = api::names::qualified_name(key).first() {
            return Err(objection(text.clone()));
        }
        for value in values {
            if let Some(text) = api::names::label_value(value).first() {
                return Err(objection(text.clone()));
            }
        }
        let several = || if values.is_empty() { Err(objection("no values".to_owned())) } else { Ok(values.to_vec()) };
        let none =
            |operator| if values.is_empty() { Ok(operator) } else { Err(objection("takes no values".to_owned())) };
        let number = || match values {
            [one] => one.parse().map_err(|_| objection(format!("{one:?} is no integer"))),
            _ => Err(objection("takes one integer".to_owned())),
        };
        let operator = match operator {
            "In" => Operator::In(several()?),
            "NotIn" => Operator::NotIn(several()?),
            "Exists" => none(Operator::Exists)?,
            "DoesNotExist" => none(Operator::DoesNotExist)?,
            "Gt" => Operator::GreaterThan(number()?),
            "Lt" => Operator::LessThan(number()?),
            other => return Err(objection(format!("{other:?} is no operator"))),
        };
        Ok(Self { key: key.to_owned(), operator })
    }

    /// Reads a requirement on a node's labels, which may compare numbers.
    ///
    /// # Errors
    /// [`SelectorError`] for a bad key, operator or value.
    pub fn on_node(wire: &NodeSelectorRequirement) -> Result<Self, SelectorError> {
        Self::read(&wire.key, &wire.operator, wire.values.as_deref().unwrap_or_default())
    }

    fn on_object(wire: &LabelSelectorRequirement) -> Result<Self, SelectorError> {
        if matches!(wire.operator.as_str(), "Gt" | "Lt") {
            let objection = format!("{:?} is no operator", wire.operator);
            return Err(SelectorError { key: wire.key.clone(), objection });
        }
        Self::read(&wire.key, &wire.operator, wire.values.as_deref().unwrap_or_default())
    }

    /// Whether labels are as required.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// Selects objects by labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// No object: what an absent selector means.
    Nothing,
    /// Objects that meet all of these; all objects if there are none.
    All(Vec<Requirement>),
}

impl Selector {
    /// Reads an object's selector; absent selects nothing, empty everything.
    ///
    /// # Errors
    /// [`SelectorError`] for a bad key, operator or value.
    pub fn read(wire: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(wire) = wire else { return Ok(Self::Nothing) };
        let mut all = Vec::new();
        for (key, value) in wire.match_labels.iter().flatten() {
            all.push(Requirement::read(key, "In", std::slice::from_ref(value))?);
        }
        for expression in wire.match_expressions.iter().flatten() {
            all.push(Requirement::on_object(expression)?);
        }
        Ok(Self::All(all))
    }

    /// Selects what has all of these labels.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        Self::All(labels.iter().map(|(key, value)| Requirement::equals(key, value)).collect())
    }

    /// Selects only what meets these as well.
    #[must_use]
    pub fn and(self, more: impl IntoIterator<Item = Requirement>) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::All(mut all) => {
                all.extend(more);
                Self::All(all)
            }
        }
    }

    /// Whether it has no requirement and so selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::All(all) if all.is_empty())
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(all) => all.iter().all(|requirement| requirement.matches(labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn labels(text: &str) -> Labels {
        text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn requirements_match_as_upstream() {
        let mut out = String::new();
        for (operator, values) in [
            ("In", &["a", "b"][..]),
            ("NotIn", &["a"]),
            ("Exists", &[]),
            ("DoesNotExist", &[]),
            ("Gt", &["3"]),
            ("Lt", &["3"]),
            ("In", &[]),
            ("Exists", &["a"]),
            ("Gt", &["x"]),
            ("Gt", &["1", "2"]),
            ("Near", &[]),
        ] {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            let shown = match Requirement::read("k", operator, &values) {
                Err(error) => error.to_string(),
                Ok(r) => {
                    ["", "k=a", "k=c", "k=4", "k=2"].map(|l| if r.matches(&labels(l)) { "yes" } else { "no" }).join(" ")
                }
            };
            out.push_str(&format!("k {operator} {values:?}: {shown}\n"));
        }
        expect![[r#"
            k In ["a", "b"]: no yes no no no
            k NotIn ["a"]: yes no yes yes yes
            k Exists []: no yes yes yes yes
            k DoesNotExist []: yes no no no no
            k Gt ["3"]: no no no yes no
            k Lt ["3"]: no no no no yes
            k In []: key "k": no values
            k Exists ["a"]: key "k": takes no values
            k Gt ["x"]: key "k": "x" is no integer
            k Gt ["1", "2"]: key "k": takes one integer
            k Near []: key "k": "Near" is no operator
        "#]]
        .assert_eq(&out);
    }

    /// An absent selector selects nothing, an empty one everything.
    #[test]
    fn absent_is_not_empty() {
        let absent = Selector::read(None).unwrap();
        let empty = Selector::read(Some(&LabelSelector::default())).unwrap();
        assert_eq!((absent.matches(&labels("a=b")), empty.matches(&labels("a=b"))), (false, true));
        assert_eq!((absent.is_empty(), empty.is_empty()), (false, true));
    }
}
