//! The store's file of settings: the flags that it means are known ones, and mean themselves.
#![no_main]

// The shell is the binary; this part of it needs nothing else.
#[path = "../../keelson/src/store_file.rs"]
#[allow(dead_code, reason = "what of it isn't for bytes from outside is used by the shell alone")]
mod store_file;

use std::path::Path;

use fuzz::same;
use libfuzzer_sys::fuzz_target;
use store_file::of_text;

/// What isn't known begins with it.
const UNKNOWN: char = 'x';

fn flags(text: &str) -> Option<Vec<String>> {
    of_text(text, Path::new("etcd.yml"), |name| !name.starts_with(UNKNOWN)).ok()
}

/// A string as YAML in quotes. JSON's would not do: YAML takes U+0085 for the end of a line, and folds it into a space.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        ' '..='~' => character.to_string(),
        other => format!("\\U{:08x}", u32::from(other)),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(flags_of_file) = flags(text) else { return };
    for flag in flags_of_file {
        let (name, value) =
            flag.strip_prefix("--").and_then(|flag| flag.split_once('=')).expect("a flag and its value");
        assert!(!name.starts_with(UNKNOWN) && !value.is_empty(), "{flag} of {text:?}");
        // A name with `=` in it is no flag's; who reads flags refuses it.
        let file = format!("? {}\n: {}\n", quoted(name), quoted(value));
        same(&flags(&file), &Some(vec![flag]), "a setting");
    }
});
