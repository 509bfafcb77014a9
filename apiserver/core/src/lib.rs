//! The apiserver's decisions: what a request means, what an object becomes.
//!
//! Pure: no clock, no socket, no store. The shell reads what is stored, calls a
//! function here, and commits what it says.
//!
//! In reading order: a request's [`request`] path, [`options`] and [`negotiate`]d
//! form; an object's [`lifecycle`] with what is special about [`kinds`]; what keeps two of them
//! from one place ([`fence`]); how it is [`stored`]; how it is shown ([`render`], [`table`]); the documents that
//! describe it all ([`discovery`], [`openapi`]).

pub mod discovery;
pub mod fence;
pub mod fieldset;
pub mod kinds;
pub mod lifecycle;
pub mod meta;
pub mod negotiate;
pub mod openapi;
pub mod options;
pub mod page;
pub mod render;
pub mod request;
pub mod storage_form;
pub mod stored;
pub mod table;
pub mod user;
