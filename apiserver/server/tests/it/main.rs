//! The apiserver as its users meet it: real kubectl, a real etcd behind it.

mod cluster;
mod kubectl;
mod programs;
mod scheduling;
mod wire;
