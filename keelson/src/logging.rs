//! What is logged, in which form and where to.
//!
//! A member of the store logs as etcd does: lines of JSON under zap's names, or text; to stderr, stdout and files.
//! Source: etcd 3.6 `client/pkg/logutil/zap.go`, `server/embed/config_logging.go`.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One object a line, as zap writes it.
    Json,
    /// Text for people.
    Console,
}

/// Starts logging; `level` holds where `KEELSON_LOG` doesn't say more.
///
/// # Errors
/// An output that can't be written to, or isn't there.
pub(crate) fn begin(level: &str, format: Format, outputs: &[String]) -> Result<()> {
    let filter = EnvFilter::try_from_env("KEELSON_LOG").unwrap_or_else(|_| format!("{level},kube_client=off").into());
    let writer = Mutex::new(Outputs::open(outputs)?);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    match format {
        Format::Json => lines.event_format(Zap).init(),
        Format::Console => lines.init(),
    }
    Ok(())
}

/// Where lines go: each to all of them.
struct Outputs(Vec<Box<dyn Write + Send>>);

impl Outputs {
    fn open(names: &[String]) -> Result<Self> {
        if names.len() > 1 && names.iter().any(|name| name == "default") {
            bail!("--log-outputs: \"default\" can't be one of several; name stderr");
        }
        names.iter().map(|name| Self::open_one(name)).collect::<Result<_>>().map(Self)
    }

    fn open_one(name: &str) -> Result<Box<dyn Write + Send>> {
        Ok(match name {
            "default" | "stderr" => Box::new(io::stderr()),
            "stdout" => Box::new(io::stdout()),
            "systemd/journal" => bail!("--log-outputs: {name}: the journal takes what a service writes to stderr"),
            path => {
                let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.with_context(|| format!("--log-outputs: {path}"))?)
            }
        })
    }

    /// Does the same with each; one that fails doesn't keep the others from theirs.
    fn each(&mut self, mut act: impl FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let results: Vec<_> = self.0.iter_mut().map(|output| act(output)).collect();
        results.into_iter().collect()
    }
}

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.each(|output| output.write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.each(|output| output.flush())
    }
}

/// One object a line: `level`, `ts`, `caller`, `msg`, and the event's fields.
struct Zap;

impl<S, N> FormatEvent<S, N> for Zap
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writeln!(writer, "{}", line(event, jiff::Timestamp::now()).map_err(|_| fmt::Error)?)
    }
}

fn line(event: &Event<'_>, now: jiff::Timestamp) -> Result<String, serde_json::Error> {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    let metadata = event.metadata();
    map.serialize_entry("level", level(metadata.level()))?;
    map.serialize_entry("ts", &format!("{now:.6}"))?;
    if let Some((file, at)) = metadata.file().zip(metadata.line()) {
        map.serialize_entry("caller", &format!("{}:{at}", short(file)))?;
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    map.serialize_entry("msg", &message.0)?;
    let mut fields = Fields { map, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    fields.map.end()?;
    // What a serializer of JSON wrote.
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn level(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// A source file by its name and its folder's.
fn short(file: &str) -> &str {
    file.rmatch_indices('/').nth(1).map_or(file, |(at, _)| &file[at + 1..])
}

/// What an event says.
struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// What it says it of, each value of its type.
struct Fields<M> {
    map: M,
    result: Result<(), serde_json::Error>,
}

impl<M: serde::ser::SerializeMap<Error = serde_json::Error>> Fields<M> {
    fn put(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if self.result.is_ok() && field.name() != "message" {
            self.result = self.map.serialize_entry(field.name(), value);
        }
    }
}

impl<M: serde::ser::SerializeMap<Error = serde_json::Error>> Visit for Fields<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, PoisonError};

    use super::*;

    /// Written to by a logger, and looked at afterwards.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_an_object_with_zaps_names_and_typed_fields() {
        let page = Page::default();
        let own = page.clone();
        let logger = tracing_subscriber::fmt().event_format(Zap).with_writer(move || own.clone()).finish();
        tracing::subscriber::with_default(logger, || {
            let took = std::time::Duration::from_millis(1500);
            tracing::warn!(name = "a\"b\n", count = 3_u64, share = 0.5, is_leader = true, ?took, "said {}", "\u{1}so");
        });
        let written = page.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(written).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let names: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, ["level", "ts", "caller", "msg", "name", "count", "share", "is_leader", "took"]);
        let fields = serde_json::json!(["warn", "said \u{1}so", "a\"b\n", 3, 0.5, true, "1.5s"]);
        let found = ["level", "msg", "name", "count", "share", "is_leader", "took"].map(|name| line[name].clone());
        assert_eq!(serde_json::json!(found), fields);
        assert!(line["caller"].as_str().is_some_and(|caller| caller.starts_with("src/logging.rs:")), "{line}");
    }

    #[test]
    fn times_are_written_as_etcd_does() {
        let now = jiff::Timestamp::from_microsecond(1_700_000_000_000_120).expect("a time");
        assert_eq!(format!("{now:.6}"), "2023-11-14T22:13:20.000120Z");
    }

    #[test]
    fn outputs_that_cannot_be_are_refused_by_name() {
        let table = [
            (vec!["default", "stdout"], "can't be one of several"),
            (vec!["systemd/journal"], "the journal takes"),
            (vec!["stderr", "/nowhere/at/all"], "/nowhere/at/all"),
        ];
        for (names, why) in table {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let refused = Outputs::open(&names).err().expect("refused");
            assert!(format!("{refused:#}").contains(why), "{refused:#}");
        }
    }
}
