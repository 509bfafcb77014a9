//! Who a member is when it starts: as its folder remembers, or, in a new folder, as one of a new
//! cluster's members, or as one that running members expect.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use prost::Message as _;
use store_core::membership::Members;
use store_core::wire::OwnIdentity;

use crate::config::{Config, ConfigError};
use crate::peers::{JoinError, members_at};
use crate::state::{State, StateError};
use crate::tls::ClientTls;

/// The file in a member's folder that says who it is: a CRC-32 and the message. Beside the state, which is the same
/// for all members.
pub(crate) const FILE: &str = "identity";

/// Who a member is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) id: u64,
    /// The number of its folder, which it had from its beginning.
    pub(crate) folder: u64,
    /// The members: of the state, or as peers told them before there is one.
    pub(crate) members: Members,
}

/// Why a member doesn't know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The settings don't say.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The running members don't say.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file.
    #[error("using {path}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is read isn't what was written.
    #[error("{0} is damaged; restore this member's folder from a copy")]
    Damaged(String),
}

/// Finds out, and writes it into a new folder.
pub(crate) async fn find(config: &Config, state: &State, tls: Option<&ClientTls>) -> Result<Identity, IdentityError> {
    let path = config.data_dir.join(FILE);
    if let Some(OwnIdentity { id, told, folder }) = read(&path)? {
        let members = state.members();
        let is_known = members.iter().next().is_some();
        let members = if is_known { members } else { Members::from_wire(told.unwrap_or_default()) };
        return Ok(Identity { id, folder, members });
    }
    config.validate_founding()?;
    if config.joins_existing {
        let identity = join(config, tls).await?;
        write(&path, &identity)?;
        return Ok(identity);
    }
    let members = Members::new(config.cluster_id(), config.founders());
    // Checked: the own name is among the founders.
    let id = members.iter().find(|member| member.name == config.name).map_or(0, |member| member.id);
    let identity = Identity { id, folder: new_folder(), members };
    // The state first: a crash in between founds the same cluster again.
    state.found(&identity.members)?;
    write(&path, &identity)?;
    Ok(identity)
}

/// A number for a new folder; never 0, which stands for one that isn't known.
pub(crate) fn new_folder() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now()).max(1)
}

fn read(path: &Path) -> Result<Option<OwnIdentity>, IdentityError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::File { path: path.display().to_string(), source }),
    };
    let whole = bytes.split_first_chunk().filter(|(crc, rest)| u32::from_be_bytes(**crc) == crc32fast::hash(rest));
    let read = whole.and_then(|(_, rest)| OwnIdentity::decode(rest).ok());
    read.map(Some).ok_or_else(|| IdentityError::Damaged(path.display().to_string()))
}

pub(crate) fn write(path: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let own = OwnIdentity { id: identity.id, told: Some(identity.members.to_wire()), folder: identity.folder }
        .encode_to_vec();
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&crc32fast::hash(&own).to_be_bytes())?;
        file.write_all(&own)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // The rename itself must survive a power cut.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| IdentityError::File { path: path.display().to_string(), source })
}

/// Asks the others, and finds itself among them by its peer URLs.
async fn join(config: &Config, tls: Option<&ClientTls>) -> Result<Identity, IdentityError> {
    let own = config.own_peer_urls();
    let others = config.initial_cluster.iter().filter(|(name, _)| **name != config.name);
    let urls: Vec<String> = others.flat_map(|(_, urls)| urls.clone()).collect();
    let members = members_at(&urls, tls).await?;
    match members.at_peer_urls(&own) {
        Some(member) => Ok(Identity { id: member.id, folder: new_folder(), members }),
        None => Err(JoinError::NotExpected(own.join(",")).into()),
    }
}
