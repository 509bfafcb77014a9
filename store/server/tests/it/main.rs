//! Members as their users meet them: etcd-client, Debian's etcdctl, crashes.

mod access;
mod admission;
mod alarms;
mod auth;
mod backup;
mod closing;
mod cluster;
mod connections;
mod damage;
mod differential;
mod divergence;
mod etcdctl;
mod failover;
mod gateway;
mod leases;
mod locks;
mod membership;
mod metrics;
mod operating;
mod ports;
mod requests;
mod script;
mod streams;
mod watchers;
