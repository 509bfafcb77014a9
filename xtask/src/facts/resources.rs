//! Resources and the columns of their tables.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;

use super::{dash, object, text};

/// Lines `R`.
pub(super) fn render(resources: &Value, out: &mut String) -> anyhow::Result<()> {
    for (group_version, list) in object(resources)? {
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        for resource in list.as_array().context("a group version holds a list")? {
            let joined = |key: &str| -> String {
                let list = resource.get(key).and_then(Value::as_array);
                list.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            };
            let scope = if resource["namespaced"] == true { "n" } else { "c" };
            let columns = [
                "R",
                dash(group),
                version,
                text(resource, "name"),
                dash(text(resource, "singularName")),
                text(resource, "kind"),
                scope,
                dash(&joined("verbs")),
                dash(&joined("shortNames")),
                dash(&joined("categories")),
                dash(text(resource, "storageVersionHash")),
                dash(text(resource, "group")),
                dash(text(resource, "version")),
            ]
            .join(" ");
            writeln!(out, "{columns}")?;
        }
    }
    Ok(())
}

/// Lines `C` and `c`.
pub(super) fn render_columns(columns: &Value, out: &mut String) -> anyhow::Result<()> {
    for (kind, list) in object(columns)? {
        writeln!(out, "C {kind}")?;
        for column in list.as_array().context("a kind holds a list of columns")? {
            let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
            let (name, ty, format) = (text(column, "name"), text(column, "type"), dash(text(column, "format")));
            writeln!(out, "c {ty} {format} {priority} {name}")?;
        }
    }
    Ok(())
}
