//! Ports for tests, given once: a port that the kernel chose and took back may be a client's by the time somebody
//! listens on it. The binary's tests use this file as well.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A port of the range that nobody has and this process hasn't given before.
pub(crate) fn free_port(range: Range<u16>) -> u16 {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    // Test programs that run beside this one begin elsewhere.
    let begin = std::process::id() as usize * 127;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut ports = (0..range.len()).map(|_| {
        let offset = (begin + GIVEN.fetch_add(1, Ordering::Relaxed)) % range.len();
        range.start + u16::try_from(offset).expect("less than the range's end")
    });
    ports.find(is_free).expect("a free port")
}
