//! The node agent's decisions, as plain functions of plain data.
//!
//! Nothing here reads a clock, opens a socket or starts a thread: the shell
//! (`agent-node`) says what time it is, what the API wants and what the
//! container runtime has, and is told what to do next.
//!
//! - [`runtime`]: the nouns: what was observed, what is to be done, what came of it.
//! - [`machine`]: one pod's life: (pod, observed, now) → actions and status.
//! - [`status`]: the pod status that is published.
//! - [`probe`]: when a probe is due and what its results mean.
//! - [`backoff`]: how long to wait after failures.
//! - [`env`]: `$(NAME)` references in commands and variables.
//! - [`resources`]: quantities to shares, quotas, bytes; quality of service.
//! - [`hollow`]: pods of simulated nodes.
//! - [`logs`]: a container's log: its lines, and the last of them.
//! - [`streams`]: exec and attach: what clients say, and which stream it is for.
//! - [`spdy`]: those streams on their way from and to the runtime.
//! - [`registry`]: whose an image is, and who one is there.
//! - [`archive`]: whether an image archive is whole, and what is in it.

pub mod archive;
pub mod backoff;
pub mod env;
pub mod hollow;
pub mod logs;
pub mod machine;
pub mod probe;
pub mod registry;
pub mod resources;
pub mod runtime;
pub mod spdy;
pub mod status;
pub mod streams;
