//! Frames: what one sync made durable, checksummed as a whole.
//!
//! A frame is a length, a CRC-32 of the length, a CRC-32 of the content, the content. Both
//! checksums take in the segment's number and the frame's place, so that content that looks like a
//! frame isn't one.
//!
//! A write that a power cut interrupted leaves a file that is too short, or sectors of zeros
//! in its last frame: a sector reaches the disk whole or not at all. Anything else that is wrong was
//! once right: it is damage. So is a frame with an intact one behind it, which was written
//! after the first was synced.
//!
//! Source for sectors: etcd `server/storage/wal/decoder.go`, `isTornEntry`.

/// Bytes before a frame's content.
const HEADER_BYTES: usize = 12;
/// Larger than any frame that is written: a length beyond it is damage.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// Kind and length before a record's payload.
const RECORD_HEADER_BYTES: usize = 5;

/// Where reading a segment ended early, and why.
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) why: &'static str,
    /// It is the trace of a write that never was acknowledged.
    pub(super) torn: bool,
}

/// Adds a record to a frame's content.
pub(super) fn push_record(content: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    content.push(kind);
    content.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    content.extend_from_slice(payload);
}

/// The header of a frame at a place of a segment.
pub(super) fn header(segment: u64, offset: u64, content: &[u8]) -> [u8; HEADER_BYTES] {
    let length = (content.len() as u32).to_le_bytes();
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length);
    header[4..8].copy_from_slice(&checksum(segment, offset, &length).to_le_bytes());
    header[8..].copy_from_slice(&checksum(segment, offset, content).to_le_bytes());
    header
}

fn checksum(segment: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&segment.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// The records of a segment up to the first fault, if there is one.
pub(super) fn read(segment: u64, bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, Option<Fault>) {
    let mut all = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let records = content(segment, bytes, offset).and_then(|content| {
            let records = records(content).ok_or("records don't fill their frame");
            Ok((records?, content.len()))
        });
        match records {
            Ok((records, length)) => {
                all.extend(records);
                offset += HEADER_BYTES + length;
            }
            Err(why) => return (all, Some(Fault { offset, why, torn: is_torn(segment, bytes, offset) })),
        }
    }
    (all, None)
}

/// The content of the frame at an offset.
fn content(segment: u64, bytes: &[u8], offset: usize) -> Result<&[u8], &'static str> {
    let length = length(segment, bytes, offset)?;
    let begin = offset + HEADER_BYTES;
    let content = bytes.get(begin..begin + length).ok_or("a frame is cut short")?;
    match word(bytes, offset + 8) {
        Some(crc) if crc == checksum(segment, offset as u64, content) => Ok(content),
        _ => Err("a frame's checksum is wrong"),
    }
}

fn length(segment: u64, bytes: &[u8], offset: usize) -> Result<usize, &'static str> {
    let (Some(length), Some(crc)) = (word(bytes, offset), word(bytes, offset + 4)) else {
        return Err("a frame's header is cut short");
    };
    if checksum(segment, offset as u64, &length.to_le_bytes()) != crc {
        return Err("a frame's length has a wrong checksum");
    }
    let length = length as usize;
    if length > FRAME_BYTES_MAX { Err("a frame has an impossible length") } else { Ok(length) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes)
}

fn records(mut content: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut records = Vec::new();
    while let Some(kind) = content.first() {
        let length = word(content, 1)? as usize;
        let payload = content.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length)?;
        records.push((*kind, payload.to_vec()));
        content = &content[RECORD_HEADER_BYTES + length..];
    }
    Some(records)
}

/// Whether the frame at an offset was never written to its end.
fn is_torn(segment: u64, bytes: &[u8], offset: usize) -> bool {
    let end = match length(segment, bytes, offset) {
        Ok(length) => offset + HEADER_BYTES + length,
        Err(_) => bytes.len(),
    };
    let too_short = end > bytes.len() || bytes.len() - offset < HEADER_BYTES;
    let looks_torn = too_short || has_sector_of_zeros(bytes, offset, end);
    looks_torn && !(offset + 1..bytes.len()).any(|later| content(segment, bytes, later).is_ok())
}

/// Whether the part of `from..to` in some sector is nothing but zeros.
fn has_sector_of_zeros(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(to);
        if bytes[at..next].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = next;
    }
    false
}
