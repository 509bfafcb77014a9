//! The apiserver as its users meet it: real kubectl, a real etcd behind it.

mod cluster;
mod kubectl;
mod programs;
mod relay;
mod scheduling;
mod unanswered;
mod wire;
