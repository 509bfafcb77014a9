//! Generates etcd's services; the messages are store-core's, but for those of locks and elections.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["etcd", "auth", "lock", "election"].map(|name| format!("../core/proto/{name}.proto"));
    let files = protox::compile(protos, ["../core/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .extern_path(".etcdserverpb", "::store_core::wire")
        // The same on the wire, with events that are encoded once for all watchers.
        .extern_path(".etcdserverpb.WatchResponse", "crate::grpc::watch::Answer")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=../core/proto");
    Ok(())
}
