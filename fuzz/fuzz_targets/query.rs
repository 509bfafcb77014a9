//! What an HTTP request's line and headers say: paths, queries, tokens of pages, media types.
#![no_main]

use apiserver_core::options::{DeleteOptions, ListOptions, Query, dry_run, parse_version};
use apiserver_core::page::Continue;
use apiserver_core::{negotiate, request};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 4 {
        0 => {
            let query = Query::parse(text);
            let _ = (ListOptions::parse(&query, which & 128 == 0), DeleteOptions::parse(&query, None), dry_run(&query));
        }
        1 => {
            if let Ok(token) = Continue::decode(text) {
                let again = Continue::decode(&token.encode()).expect("what was written is read");
                same(&again, &token, "a page's token");
            }
        }
        2 => {
            if let Some(path) = request::parse(text) {
                same(&request::parse(text), &Some(path), "a path");
            }
            let _ = parse_version(text);
        }
        _ => {
            let _ = (negotiate::form(text), negotiate::body_encoding(text), negotiate::discovery(text));
        }
    }
});
