//! The tester's configuration: one file for the cluster, and one for each group of cases.

use std::path::Path;

use anyhow::{Context, Result};

/// In this order.
const GROUPS: [&str; 4] = ["data", "snapshots", "watchers", "runners"];
/// Begins the last part of a group's file.
const CASES: &str = "  cases:\n";

/// Cases that run on one cluster, one after the other, beside the same requests.
pub(super) struct Group {
    pub(super) name: String,
    /// The file, without its cases, behind that of the cluster.
    pub(super) config: String,
    pub(super) cases: Vec<String>,
}

impl Group {
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.cases.iter().map(|case| format!("{}/{case}", self.name))
    }

    /// The whole of a configuration with these cases.
    pub(super) fn with(&self, cases: &[String], dir: &Path, etcd: &Path, runner: &Path) -> String {
        let mut text = self.config.clone();
        for (mark, path) in [("{dir}", dir), ("{etcd}", etcd), ("{runner}", runner)] {
            text = text.replace(mark, &path.display().to_string());
        }
        text.push_str(CASES);
        cases.iter().for_each(|case| text.push_str(&format!("  - {case}\n")));
        text
    }
}

pub(super) fn read(dir: &Path) -> Result<Vec<Group>> {
    let file = |name: &str| {
        let path = dir.join(format!("{name}.yaml"));
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let cluster = file("cluster")?;
    GROUPS.iter().map(|name| parse(name, &cluster, &file(name)?)).collect()
}

fn parse(name: &str, cluster: &str, text: &str) -> Result<Group> {
    let (head, cases) = text.split_once(CASES).with_context(|| format!("{name}.yaml holds no cases"))?;
    let cases = cases.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let case = line.strip_prefix("- ").with_context(|| format!("{name}.yaml: no case: {line:?}"))?;
        Ok(case.to_owned())
    };
    Ok(Group {
        name: name.to_owned(),
        config: format!("{cluster}{head}"),
        cases: cases.map(case).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_holds_the_chosen_cases() {
        let cluster = "agent-configs:\n- etcd-exec: {etcd}\n  base-dir: {dir}/s1\ntester-config:\n";
        let group = parse("data", cluster, "  stress-qps: 9\n  cases:\n  # why\n  - A\n  - B\n").expect("a group");
        assert_eq!(group.cases, ["A", "B"]);
        assert_eq!(group.names().collect::<Vec<_>>(), ["data/A", "data/B"]);
        let text = group.with(&group.cases[1..], Path::new("/d"), Path::new("/e"), Path::new("/r"));
        assert_eq!(
            text,
            "agent-configs:\n- etcd-exec: /e\n  base-dir: /d/s1\ntester-config:\n  stress-qps: 9\n  cases:\n  - B\n"
        );
        assert!(parse("data", cluster, "  cases:\n  A\n").is_err());
        assert!(parse("data", cluster, "  stress-qps: 9\n").is_err());
    }

    #[test]
    fn our_files_are_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/interop/etcd-3.4/functional");
        let groups = read(&dir).expect("the project's own files");
        assert_eq!(groups.len(), GROUPS.len());
        assert!(groups.iter().all(|group| !group.cases.is_empty() && group.config.contains("{etcd}")));
    }
}
