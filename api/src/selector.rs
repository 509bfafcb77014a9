//! Selectors: which objects are meant, by labels or by fields.

pub mod fields;
pub mod labels;
