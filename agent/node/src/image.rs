//! Container images made and looked at here, without docker and without a registry.
//!
//! What is built is an OCI image layout in a tar, as `ctr -n k8s.io images import` takes it. The same input gives the
//! same bytes: nothing carries a time or an owner's name.
//!
//! Source: OCI image-spec 1.1 (`image-layout.md`, `manifest.md`, `config.md`, `layer.md`).

pub mod archive;
pub mod demo;
pub mod oci;
pub mod pause;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A machine that images are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// This machine's; `None` if it is another.
    pub fn here() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Its name in images.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its number in an ELF file's `e_machine`.
    fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }
}

/// The digest of content, in hexadecimal, without `sha256:`.
fn sha256(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String doesn't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
