//! Frames: what one sync made durable, checksummed as a whole.
//!
//! A frame is a length, a CRC-32 of the length, a CRC-32 of the content, the content. Both
//! checksums take in the segment's number and the frame's place, so that content that looks like a
//! frame isn't one.
//!
//! Behind the last frame there may be zeros: a file can be made in its length before anything is written to it, and
//! what is written can be filled up to whole blocks. No frame begins with them: its length isn't zero.
//!
//! A write that a power cut interrupted leaves a file that is too short, or sectors of zeros
//! in its last frame: a sector reaches the disk whole or not at all. A frame whose content has sectors of zeros of
//! its own says how many: the length's highest bit is set, and their number stands behind the checksums. Anything
//! else that is wrong was once right: it is damage. So is a frame with an intact one behind it, which was written
//! after the first was synced.
//!
//! Source for sectors: etcd `server/storage/wal/decoder.go`, `isTornEntry`.

/// Bytes before a frame's content.
const HEADER_BYTES: usize = 12;
/// The same, if it has sectors of zeros.
const LONG_HEADER_BYTES: usize = 16;
/// In a length: the header is the long one.
const HAS_ZEROS: u32 = 1 << 31;
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
    let begin = begin_record(content, kind);
    content.extend_from_slice(payload);
    end_record(content, begin);
}

/// Begins a record, whose payload is added behind; returns where that begins, for [`end_record`].
pub(super) fn begin_record(content: &mut Vec<u8>, kind: u8) -> usize {
    content.push(kind);
    content.extend_from_slice(&[0; RECORD_HEADER_BYTES - 1]);
    content.len()
}

/// Ends a record whose payload begins there.
pub(super) fn end_record(content: &mut [u8], begin: usize) {
    let length = (content.len() - begin) as u32;
    content[begin + 1 - RECORD_HEADER_BYTES..begin].copy_from_slice(&length.to_le_bytes());
}

/// The header of a frame at a place of a segment.
pub(super) fn header(segment: u64, offset: u64, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    let mut sized = length.to_le_bytes().to_vec();
    let mut zeros = Vec::new();
    if sectors_of_zeros(offset as usize + HEADER_BYTES, content) > 0 {
        // Counted where the longer header puts them.
        let count = sectors_of_zeros(offset as usize + LONG_HEADER_BYTES, content) as u32;
        sized = (length | HAS_ZEROS).to_le_bytes().to_vec();
        zeros.extend_from_slice(&count.to_le_bytes());
    }
    let crc = checksum(segment, offset, &[&sized[..], &zeros].concat());
    [&sized[..], &crc.to_le_bytes(), &checksum(segment, offset, content).to_le_bytes(), &zeros].concat()
}

/// How many sectors hold nothing but zeros, of those that begin in content that begins at a place of a segment.
fn sectors_of_zeros(place: usize, content: &[u8]) -> usize {
    let first = place.next_multiple_of(SECTOR_BYTES) - place;
    let sectors = content.get(first..).unwrap_or_default().chunks(SECTOR_BYTES);
    sectors.filter(|sector| sector.iter().all(|byte| *byte == 0)).count()
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
    let end = end_of_frames(bytes);
    while offset < end {
        let records = content(segment, bytes, offset).and_then(|(content, end)| {
            let records = records(content).ok_or("records don't fill their frame");
            Ok((records?, end))
        });
        match records {
            Ok((records, end)) => {
                all.extend(records);
                offset = end;
            }
            Err(why) => return (all, Some(Fault { offset, why, torn: is_torn(segment, bytes, offset) })),
        }
    }
    (all, None)
}

/// Behind this there are only zeros. The last frame may reach beyond it, with zeros of its own.
fn end_of_frames(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The content of the frame at an offset, and where the frame ends.
fn content(segment: u64, bytes: &[u8], offset: usize) -> Result<(&[u8], usize), &'static str> {
    let Sized { begin, end, .. } = sized(segment, bytes, offset)?;
    let content = bytes.get(begin..end).ok_or("a frame is cut short")?;
    match word(bytes, offset + 8) {
        Some(crc) if crc == checksum(segment, offset as u64, content) => Ok((content, end)),
        _ => Err("a frame's checksum is wrong"),
    }
}

/// What a frame's header says of its content: from where to where it goes, and how many sectors of zeros it has.
struct Sized {
    begin: usize,
    end: usize,
    zeros: usize,
}

fn sized(segment: u64, bytes: &[u8], offset: usize) -> Result<Sized, &'static str> {
    let (Some(length), Some(crc)) = (word(bytes, offset), word(bytes, offset + 4)) else {
        return Err("a frame's header is cut short");
    };
    let mut checked = length.to_le_bytes().to_vec();
    let (mut begin, mut zeros) = (offset + HEADER_BYTES, 0);
    if length & HAS_ZEROS != 0 {
        let count = word(bytes, offset + HEADER_BYTES).ok_or("a frame's header is cut short")?;
        checked.extend_from_slice(&count.to_le_bytes());
        (begin, zeros) = (offset + LONG_HEADER_BYTES, count as usize);
    }
    if checksum(segment, offset as u64, &checked) != crc {
        return Err("a frame's length has a wrong checksum");
    }
    let length = (length & !HAS_ZEROS) as usize;
    if length > FRAME_BYTES_MAX {
        return Err("a frame has an impossible length");
    }
    Ok(Sized { begin, end: begin + length, zeros })
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
    let looks_torn = match sized(segment, bytes, offset) {
        _ if bytes.len() - offset < LONG_HEADER_BYTES => true,
        Ok(Sized { end, .. }) if end > bytes.len() => true,
        Ok(Sized { begin, end, zeros }) => {
            sectors_of_zeros(begin, &bytes[begin..end]) > zeros || is_beginning_missing(bytes, offset, begin)
        }
        // Of its sectors one at least was never written, or it is damaged.
        Err(_) => is_header_missing(bytes, offset),
    };
    looks_torn && !(offset + 1..end_of_frames(bytes)).any(|later| content(segment, bytes, later).is_ok())
}

/// Whether the sector that content begins in is nothing but zeros, if the header reaches into it: nothing like that is
/// written, as a record's kind isn't zero.
fn is_beginning_missing(bytes: &[u8], offset: usize, begin: usize) -> bool {
    let sector = begin / SECTOR_BYTES * SECTOR_BYTES;
    let part = &bytes[sector.min(bytes.len())..(sector + SECTOR_BYTES).min(bytes.len())];
    sector > offset && part.iter().all(|byte| *byte == 0)
}

/// Whether a sector is nothing but zeros, from the frame on, that its header lies in.
fn is_header_missing(bytes: &[u8], offset: usize) -> bool {
    let is_long = word(bytes, offset).is_some_and(|length| length & HAS_ZEROS != 0);
    let end = offset + if is_long { LONG_HEADER_BYTES } else { HEADER_BYTES };
    let next = (offset / SECTOR_BYTES + 1) * SECTOR_BYTES;
    let parts = [(offset, next), (next, next + SECTOR_BYTES)];
    let lies_in = |(from, _): &(usize, usize)| *from < bytes.len().min(end);
    parts.into_iter().filter(lies_in).any(|(from, to)| bytes[from..to.min(bytes.len())].iter().all(|byte| *byte == 0))
}
