//! Members as their users meet them: etcd-client, Debian's etcdctl, crashes.

mod cluster;
mod etcdctl;
mod failover;
mod ports;
mod requests;
