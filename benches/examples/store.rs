//! The load of `keelson bench store`, alone: for measuring an etcd where there is no Keelson.

use clap::Parser;

/// Puts load on a store and prints what was measured.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: benches::store::Args,
}

/// As in `keelson bench`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    benches::store::run(&Cli::parse().args).await
}
