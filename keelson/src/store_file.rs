//! etcd's configuration file: the same settings as its flags, which it stands in place of.
//!
//! Source: etcd 3.6 `server/embed/config.go` (`configYAML`, `securityConfig`), `server/etcdmain/config.go`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

const FLAG: &str = "--config-file";
const VARIABLE: &str = "ETCD_CONFIG_FILE";

/// Durations, which etcd's file has in nanoseconds.
const DURATIONS: [&str; 7] = [
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "experimental-warning-apply-duration",
    "warning-apply-duration",
    "experimental-watch-progress-notify-interval",
    "watch-progress-notify-interval",
];

/// What stands under `client-transport-security` and `peer-transport-security`, and the flags that mean it.
const SECURITY: [(&str, &str, &str); 9] = [
    ("cert-file", "cert-file", "peer-cert-file"),
    ("key-file", "key-file", "peer-key-file"),
    ("client-cert-file", "client-cert-file", "peer-client-cert-file"),
    ("client-key-file", "client-key-file", "peer-client-key-file"),
    ("client-cert-auth", "client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", "trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", "auto-tls", "peer-auto-tls"),
    ("allowed-cn", "client-cert-allowed-cn", "peer-cert-allowed-cn"),
    ("allowed-hostname", "client-cert-allowed-hostname", "peer-cert-allowed-hostname"),
];

/// The file that flags name, the last one of them; and the other arguments.
///
/// # Errors
/// A flag without a file.
pub(crate) fn take(arguments: Vec<String>) -> Result<(Option<PathBuf>, Vec<String>)> {
    let (mut file, mut others) = (None, Vec::with_capacity(arguments.len()));
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix(FLAG) {
            Some("") => file = Some(rest.next().with_context(|| format!("{FLAG} needs a file"))?.into()),
            Some(joined) if joined.starts_with('=') => file = Some(joined[1..].into()),
            _ => others.push(argument),
        }
    }
    Ok((file, others))
}

/// The file that the environment names.
pub(crate) fn variable() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// The flags that a file means.
///
/// # Errors
/// A file that can't be read, or that holds what no flag means.
pub(crate) fn flags(path: &Path, is_known: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    of_text(&text, path, is_known)
}

/// The flags that the text of a file means.
///
/// # Errors
/// What no flag means.
pub(crate) fn of_text(text: &str, path: &Path, is_known: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let settings: Option<Map<String, Value>> = serde_norway::from_str(text)
        .with_context(|| format!("{}: a file of settings is a YAML mapping of names to values", path.display()))?;
    let mut flags = Vec::new();
    for (name, value) in settings.unwrap_or_default() {
        match (name.as_str(), value) {
            ("client-transport-security", Value::Object(settings)) => {
                security(&settings, |(_, client, _)| client, path, &mut flags)?;
            }
            ("peer-transport-security", Value::Object(settings)) => {
                security(&settings, |(_, _, peer)| peer, path, &mut flags)?;
            }
            ("client-transport-security" | "peer-transport-security", Value::Null) => {}
            (name, _) if !is_known(name) => bail!("{}: {name} is no setting of the store", path.display()),
            (name, value) => flags.extend(flag(name, &value, path)?),
        }
    }
    Ok(flags)
}

fn security(
    settings: &Map<String, Value>,
    side: impl Fn((&'static str, &'static str, &'static str)) -> &'static str,
    path: &Path,
    flags: &mut Vec<String>,
) -> Result<()> {
    for (name, value) in settings {
        let known = SECURITY.into_iter().find(|(known, ..)| known == name);
        let known = known.with_context(|| format!("{}: {name} is no setting of TLS", path.display()))?;
        flags.extend(flag(side(known), value, path)?);
    }
    Ok(())
}

/// A setting as a flag; `None` for one that is left empty, as the sample that comes with etcd leaves most.
fn flag(name: &str, value: &Value, path: &Path) -> Result<Option<String>> {
    let nanoseconds = DURATIONS.contains(&name) && value.is_number();
    let text = match value {
        Value::Null => return Ok(None),
        Value::Array(parts) => {
            let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
            parts.map(|parts| parts.join(","))
        }
        Value::Object(parts) if name == "feature-gates" => {
            let gate = |(gate, on): (&String, &Value)| Some(format!("{gate}={}", scalar(on)?));
            let gates: Option<Vec<String>> = parts.iter().map(gate).collect();
            gates.map(|gates| gates.join(","))
        }
        value => scalar(value),
    };
    let text = text.with_context(|| format!("{}: {name} has parts, where a value is expected", path.display()))?;
    let unit = if nanoseconds && text != "0" { "ns" } else { "" };
    Ok(Some(text).filter(|text| !text.is_empty()).map(|text| format!("--{name}={text}{unit}")))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        of_text(text, Path::new("etcd.yml"), |name| name != "nonsense").map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn settings_are_flags_and_empty_ones_are_none() {
        let file = "
name: 'm1'
data-dir:
cors: ''
snapshot-count: 10000
strict-reconfig-check: false
log-outputs: [stderr, stdout]
auto-compaction-retention: \"1\"
quota-backend-bytes: 8589934592
grpc-keepalive-interval: 7200000000000
watch-progress-notify-interval: 5s
feature-gates: {InitialCorruptCheck: true}
client-transport-security:
  cert-file: /c.crt
  client-cert-auth: true
  trusted-ca-file:
peer-transport-security:
  cert-file: /p.crt
  client-cert-file: /d.crt
  allowed-cn: m
";
        let wanted = [
            "--name=m1",
            "--snapshot-count=10000",
            "--strict-reconfig-check=false",
            "--log-outputs=stderr,stdout",
            "--auto-compaction-retention=1",
            "--quota-backend-bytes=8589934592",
            "--grpc-keepalive-interval=7200000000000ns",
            "--watch-progress-notify-interval=5s",
            "--feature-gates=InitialCorruptCheck=true",
            "--cert-file=/c.crt",
            "--client-cert-auth=true",
            "--peer-cert-file=/p.crt",
            "--peer-client-cert-file=/d.crt",
            "--peer-cert-allowed-cn=m",
        ];
        assert_eq!(read(file).expect("settings"), wanted);
        assert_eq!(read("# nothing\n").expect("no settings"), Vec::<String>::new());
    }

    #[test]
    fn what_no_flag_means_is_named() {
        for (file, why) in [
            ("nonsense: 1", "etcd.yml: nonsense is no setting of the store"),
            ("peer-transport-security: {cert: a}", "etcd.yml: cert is no setting of TLS"),
            ("name: {a: b}", "etcd.yml: name has parts"),
            ("- name", "etcd.yml: a file of settings is a YAML mapping"),
            ("name: [", "etcd.yml: a file of settings is a YAML mapping"),
        ] {
            let refused = read(file).expect_err(file);
            assert!(refused.starts_with(why), "{file}: {refused}");
        }
    }

    #[test]
    fn the_last_file_that_flags_name_counts() {
        let take = |words: &[&str]| super::take(words.iter().map(|word| (*word).to_owned()).collect());
        let (file, others) = take(&["store", "--name=c", "--config-file=a", "--config-file", "b"]).expect("files");
        assert_eq!((file, others), (Some("b".into()), vec!["store".to_owned(), "--name=c".to_owned()]));
        assert_eq!(take(&["--config-files"]).expect("another flag"), (None, vec!["--config-files".to_owned()]));
        assert!(take(&["--config-file"]).is_err());
        let missing = super::flags(Path::new("/nowhere"), |_| true).expect_err("no such file");
        assert!(missing.to_string().contains("reading /nowhere"), "{missing}");
    }
}
