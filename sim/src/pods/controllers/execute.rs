//! Making writes, as `controllers/server/src/execute.rs`.

use api::status::Status;
use apiserver_core::lifecycle::Part;
use apiserver_core::meta;
use apiserver_core::options::{self, DeleteOptions};
use controllers_core::write::{Propagation, Target, Write};
use serde_json::Value;

use super::super::apiserver::{Ask, Failure, Place};
use super::super::client::Client;
use super::super::objects::Kind;
use crate::mutant::Mutant;

/// What a write made or ended, for those who wait to see it.
#[derive(Debug, Default, Clone)]
pub(super) struct Made {
    /// Names of created objects.
    pub(super) created: Vec<String>,
    /// UIDs of deleted ones.
    pub(super) deleted: Vec<String>,
    /// Names of those that were created earlier and are gone.
    pub(super) gone: Vec<String>,
}

fn kind(name: &str) -> Kind {
    Kind::named(name).unwrap_or_else(|| panic!("no controller here writes a {name}"))
}

fn place(target: &Target) -> Place {
    Place::new(kind(&target.kind), &target.namespace, &target.name)
}

fn place_of(object: &Value) -> Place {
    Place::new(kind(meta::text(object, "/kind")), meta::namespace(object), meta::name(object))
}

async fn delete(
    client: &Client,
    (target, uid): (&Target, &str),
    options: DeleteOptions,
    made: &mut Made,
) -> Result<(), Failure> {
    match client.delete(place(target), options).await {
        Ok(hit) => {
            client.is_meant(&hit, uid);
            made.deleted.push(uid.to_owned());
        }
        // Gone, or another object of the name by now.
        Err(failure) if failure.is(404) || failure.is(409) => {}
        Err(failure) => return Err(failure),
    }
    Ok(())
}

fn conditions(client: &Client, uid: &str, propagation: Propagation) -> DeleteOptions {
    let propagation = match propagation {
        Propagation::Background => options::Propagation::Background,
        Propagation::Foreground => options::Propagation::Foreground,
        Propagation::Orphan => options::Propagation::Orphan,
    };
    let uid = Some(uid.to_owned()).filter(|_| !client.sim.has(Mutant::DeleteWithoutUid));
    DeleteOptions { propagation: Some(propagation), uid, ..DeleteOptions::default() }
}

/// Makes one write; what is done already counts as done.
async fn make(client: &Client, write: &Write, made: &mut Made) -> Result<(), Failure> {
    match write {
        Write::Create(object) => {
            let kind = kind(meta::text(object, "/kind"));
            match client.create(kind, meta::namespace(object), object.clone()).await {
                Ok(created) => made.created.push(meta::name(&created).to_owned()),
                Err(failure) if failure.is(409) && !meta::name(object).is_empty() => {}
                Err(failure) => return Err(failure),
            }
        }
        Write::Update(object) => {
            client.object(Ask::Update(place_of(object), Part::Main, object.clone())).await?;
        }
        Write::UpdateStatus(object) => {
            client.object(Ask::Update(place_of(object), Part::Status, object.clone())).await?;
        }
        Write::Patch(target, patch) => {
            client.patch(place(target), Part::Main, patch.clone()).await?;
        }
        Write::PatchStatus(target, patch) => {
            client.patch(place(target), Part::Status, patch.clone()).await?;
        }
        Write::Delete(target, uid, propagation) => {
            let options = conditions(client, uid, *propagation);
            delete(client, (target, uid), options, made).await?;
        }
        Write::DeleteAt(target, uid, version, propagation) => {
            let options = conditions(client, uid, *propagation);
            delete(client, (target, uid), DeleteOptions { resource_version: Some(version.clone()), ..options }, made)
                .await?;
        }
        Write::Confirm(target, uid) => {
            let found = client.object(Ask::Get(place(target))).await?;
            let is_same = meta::uid(&found) == uid && meta::text(&found, "/metadata/deletionTimestamp").is_empty();
            if !is_same {
                let status = Status::conflict("", "", &target.name, "it isn't there any more as it was shown");
                return Err(Failure::Status(status));
            }
        }
        Write::DeleteAtOnce(target, uid) => {
            // Its agent isn't asked, and may still run it.
            client.sim.forced.borrow_mut().insert(uid.clone());
            let (condition, grace) = (Some(uid.clone()), (!client.sim.has(Mutant::KeepOrphans)).then_some(0));
            let options = DeleteOptions { grace_period_seconds: grace, uid: condition, ..DeleteOptions::default() };
            delete(client, (target, uid), options, made).await?;
        }
        Write::Finalize(_) | Write::DeleteAll(..) => {}
    }
    Ok(())
}

/// Makes writes in order and stops at the first that fails; what was made is told either way.
pub(super) async fn execute(client: &Client, writes: &[Write]) -> (Made, Result<(), Failure>) {
    let mut made = Made::default();
    for write in writes {
        match make(client, write, &mut made).await {
            Ok(()) => {}
            // An object that is gone needs no more writes; its end is on its way to us.
            Err(failure) if failure.is(404) => return (made, Ok(())),
            Err(failure) => return (made, Err(failure)),
        }
    }
    (made, Ok(()))
}
