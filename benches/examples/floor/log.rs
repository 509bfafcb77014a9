//! A log: whole blocks past the page cache into a file of zeros, one sync a batch, on a thread of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use nix::fcntl::OFlag;
use tokio::sync::mpsc::UnboundedSender;

const BLOCK_BYTES: usize = 4096;
/// Written over from the begin when it is full.
const FILE_BYTES: u64 = 64 << 20;
/// The largest batch.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Where batches are handed over; each is told when it is synced.
pub(crate) fn open(path: &Path, synced: UnboundedSender<u64>) -> Result<mpsc::Sender<(u64, Bytes)>> {
    let zeros = vec![0; 1 << 20];
    let file = File::create(path).with_context(|| path.display().to_string())?;
    for place in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, place)?;
    }
    file.sync_all()?;
    let file = OpenOptions::new().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(path)?;
    let (sender, batches) = mpsc::channel::<(u64, Bytes)>();
    std::thread::spawn(move || {
        let mut memory = vec![0_u8; BATCH_BYTES_MAX + 2 * BLOCK_BYTES];
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        let mut place = 0;
        while let Ok((number, batch)) = batches.recv() {
            assert!(batch.len() <= BATCH_BYTES_MAX, "a batch of {} bytes", batch.len());
            let length = batch.len().next_multiple_of(BLOCK_BYTES);
            memory[begin..begin + batch.len()].copy_from_slice(&batch);
            if place + length as u64 > FILE_BYTES {
                place = 0;
            }
            let written = file.write_all_at(&memory[begin..begin + length], place).and_then(|()| file.sync_data());
            if let Err(error) = written {
                panic!("the log can't be written: {error}");
            }
            // The last block is written again by a real log, so that nothing lies between batches.
            place += length as u64;
            if synced.send(number).is_err() {
                return;
            }
        }
    });
    Ok(sender)
}
