//! Table columns: what `kubectl get` prints of each built-in kind.
//!
//! Always holds: columns of priority 0 are shown always, others with `-o wide`.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A column of a kind's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// Type: `string`, `integer`, `date`, `boolean`.
    pub ty: &'static str,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: &'static str,
    /// 0 is shown always.
    pub priority: i32,
    /// What it means; may be empty.
    pub description: &'static str,
}

/// The columns of a kind; none if the kind has no table of its own.
#[must_use]
pub fn columns(kind: &str) -> &'static [Column] {
    static COLUMNS: OnceLock<HashMap<&'static str, Vec<Column>>> = OnceLock::new();
    COLUMNS.get_or_init(|| parse(crate::schema::TEXT)).get(kind).map_or(&[], Vec::as_slice)
}

fn parse(text: &'static str) -> HashMap<&'static str, Vec<Column>> {
    let mut out: HashMap<&'static str, Vec<Column>> = HashMap::new();
    let mut kind = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("C ") {
            kind = name;
        } else if let Some(rest) = line.strip_prefix("c ") {
            let mut parts = rest.splitn(4, ' ');
            let mut next = || parts.next().expect("c <type> <format> <priority> <name>");
            let (ty, format, priority, name) = (next(), next(), next(), next());
            let format = if format == "-" { "" } else { format };
            let priority = priority.parse().expect("a priority");
            out.entry(kind).or_default().push(Column { name, ty, format, priority, description: "" });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn pods_have_their_columns() {
        let names: Vec<_> = columns("Pod").iter().filter(|c| c.priority == 0).map(|c| c.name).collect();
        assert_eq!(names, ["Name", "Ready", "Status", "Restarts", "Age"]);
        assert_eq!(columns("Pod")[0].format, "name");
        assert!(columns("Nothing").is_empty());
    }
}
