//! The demo image: busybox under all its names, made from the static binary on this machine.

use std::io;
use std::path::{Path, PathBuf};

use super::Architecture;
use super::oci::{self, BuildError, Content, File, ImageConfig};

#[cfg(test)]
mod tests;

/// The image's name.
pub const REFERENCE: &str = "keelson.local/demo:1";

/// Names under which busybox is another program; all in Debian's busybox-static.
pub const APPLETS: [&str; 60] = [
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gzip",
    "head",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tar",
    "tee",
    "test",
    "top",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "wget",
];

/// A program larger than this isn't busybox: bytes.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// Why the demo image can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Install the package busybox-static.
    #[error("reading {path}: install busybox-static")]
    Read {
        /// Where busybox should be.
        path: PathBuf,
        /// Why it can't be read.
        #[source]
        source: io::Error,
    },
    /// It is no program, one for another machine, or one that needs libraries, which the image doesn't have.
    #[error("{path} can't be the only program of an image: {reason}")]
    Program {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive can't be built.
    #[error("building the image")]
    Build(#[from] BuildError),
}

/// Builds [`REFERENCE`] from the static busybox at `busybox`, such as `/bin/busybox`.
///
/// # Errors
/// [`DemoError`] if there is no such program or it isn't static.
pub fn image(busybox: &Path) -> Result<Vec<u8>, DemoError> {
    let failed = |source| DemoError::Read { path: busybox.to_owned(), source };
    let length = std::fs::metadata(busybox).map_err(failed)?.len();
    if length > PROGRAM_BYTES_MAX {
        return Err(DemoError::Program { path: busybox.to_owned(), reason: "it is too large" });
    }
    let program = std::fs::read(busybox).map_err(failed)?;
    let architecture =
        static_program(&program).map_err(|reason| DemoError::Program { path: busybox.to_owned(), reason })?;
    let config = ImageConfig { cmd: vec!["/bin/sh".to_owned()], ..ImageConfig::new(architecture) };
    Ok(oci::build(REFERENCE, &files(program), &config)?)
}

fn files(busybox: Vec<u8>) -> Vec<File> {
    let file = |path: &str, mode, content| File { path: path.to_owned(), mode, content };
    let text = |path, text: &str| file(path, 0o644, Content::Bytes(text.as_bytes().to_vec()));
    let mut files = vec![
        file("bin/busybox", 0o755, Content::Bytes(busybox)),
        text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        file("root", 0o700, Content::Folder),
        file("tmp", 0o1777, Content::Folder),
    ];
    let link = |applet: &&str| file(&format!("bin/{applet}"), 0o777, Content::Symlink("busybox".to_owned()));
    files.extend(APPLETS.iter().map(link));
    files
}

/// The machine that a static program is for, by its ELF headers.
fn static_program(bytes: &[u8]) -> Result<Architecture, &'static str> {
    /// The program header of one that needs a loader.
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?));
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is not a 64-bit little-endian program");
    }
    let all = [Architecture::Amd64, Architecture::Arm64];
    let architecture = all.into_iter().find(|a| half(18) == Some(a.elf_machine())).ok_or("its machine is unknown")?;
    let cut = "its headers are cut off";
    let table = long(32).and_then(|offset| usize::try_from(offset).ok()).ok_or(cut)?;
    let (size, count) = (usize::from(half(54).ok_or(cut)?), usize::from(half(56).ok_or(cut)?));
    for index in 0..count {
        let kind = table.checked_add(index * size).and_then(word).ok_or(cut)?;
        if kind == PT_INTERP {
            return Err("it needs libraries; the static one is wanted");
        }
    }
    Ok(architecture)
}
