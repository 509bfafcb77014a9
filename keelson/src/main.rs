//! The one binary: arguments, roles, supervision.
//!
//! Run under the name `etcd` it is the store, so that it can stand where etcd stood.

mod agent;
mod image;
mod logging;
mod pki;
mod server;
mod status;
mod store_args;
mod store_file;
mod store_flags;
mod store_import;
mod store_snapshot;
mod up;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Kubernetes-compatible cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "keelson", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster on this machine and watch over it
    Up(up::UpArgs),
    /// Stop what `up` started
    Down {
        /// The folder given to `up`
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Remove the folder with all its data
        #[arg(long)]
        purge: bool,
    },
    /// Show members, leader, components and nodes
    Status {
        /// The folder given to `up`
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    /// One member of the store: etcd's v3 API, etcd's flags
    Store(Box<store_args::StoreArgs>),
    /// The control plane: the API, the scheduler and the controllers
    Server(Box<server::ServerArgs>),
    /// A node: its pods and its service proxy
    Agent(Box<agent::AgentArgs>),
    /// Bring images to the cluster without a registry
    Image {
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// Measure a running server
    Bench {
        #[command(subcommand)]
        command: Bench,
    },
    /// Run a program that dies with its parent (used by `up`)
    #[command(hide = true)]
    Supervised {
        parent: i32,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Any etcd v3 store: writes, transactions, reads, lists, or watches
    Store(benches::store::Args),
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    let called = arguments.first().map(PathBuf::from);
    let called = called.as_deref().and_then(|p| p.file_name()).and_then(|n| n.to_str());
    if called == Some("etcd") {
        arguments.insert(1, "store".to_owned());
    }
    match read(store_args::go_flags(arguments)).and_then(|(cli, words)| run(cli, &words)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keelson: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments; what to say of those that the store passes over.
fn read(arguments: Vec<String>) -> Result<(Cli, Vec<String>)> {
    if arguments.get(1).map(String::as_str) != Some("store") {
        return Ok((Cli::parse_from(arguments), Vec::new()));
    }
    let (file, arguments) = store_file::take(arguments)?;
    let (given, words) = store_flags::sort_out(arguments)?;
    let command = Cli::command();
    let cli = Cli::from_arg_matches(&command.clone().get_matches_from(&given))?;
    match file.or_else(store_file::variable) {
        Some(file) if matches!(&cli.command, Command::Store(args) if args.tool.is_none()) => by_file(&file, command),
        _ => by_flags(cli, words, &command),
    }
}

fn store_flags(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    command.find_subcommand("store").into_iter().flat_map(clap::Command::get_arguments)
}

fn is_named(flag: &clap::Arg, name: &str) -> bool {
    flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|others| others.contains(&name))
}

/// What the flags and variables say.
fn by_flags(cli: Cli, mut words: Vec<String>, command: &clap::Command) -> Result<(Cli, Vec<String>)> {
    let known = store_flags(command).filter_map(|flag| flag.get_env()?.to_str().map(str::to_owned)).collect();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    words.extend(store_flags::look_at(variables, &known)?);
    Ok((cli, words))
}

/// What a file of settings says: then flags and variables say nothing, as in etcd.
fn by_file(file: &std::path::Path, command: clap::Command) -> Result<(Cli, Vec<String>)> {
    let is_known = |name: &str| store_flags(&command).any(|flag| is_named(flag, name)) || store_flags::is_etcds(name);
    let flags = store_file::flags(file, is_known)?;
    let own = ["keelson", "store"].map(str::to_owned).into_iter();
    let (given, mut words) = store_flags::sort_out(own.chain(flags).collect())?;
    words.push(format!("settings come from {}: other flags and variables say nothing", file.display()));
    let without_variable = |flag: clap::Arg| flag.env(clap::builder::Resettable::Reset);
    let command = command.mut_subcommand("store", |store| store.mut_args(without_variable));
    Ok((Cli::from_arg_matches(&command.get_matches_from(given))?, words))
}

/// mimalloc's switch for touching arenas in advance. With it on, the kernel backs a small process's heap
/// with huge pages: 12 MB where a member of an idle store needs 2 MB.
const EAGER_COMMIT: &str = "MIMALLOC_ARENA_EAGER_COMMIT";

/// Becomes this program again, with memory touched only as it is used; what it starts inherits that.
/// The allocator reads its switches before `main`. Returns only if it can't.
fn with_lazy_memory() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return anyhow::Error::new(error).context("finding this program's own file"),
    };
    let error = std::process::Command::new(&own).args(std::env::args_os().skip(1)).env(EAGER_COMMIT, "0").exec();
    anyhow::Error::new(error).context(format!("running {}", own.display()))
}

fn run(cli: Cli, words: &[String]) -> Result<ExitCode> {
    match &cli.command {
        Command::Supervised { parent, command } => {
            return up::supervise::become_supervised(*parent, command).map(|()| ExitCode::SUCCESS);
        }
        Command::Up(_) if std::env::var_os(EAGER_COMMIT).is_none() => return Err(with_lazy_memory()),
        _ => {}
    }
    match cli.command {
        Command::Store(args) if args.tool.is_none() => member(*args, words),
        command => {
            logging::begin("info", logging::Format::Console, &["stderr".to_owned()])?;
            words.iter().for_each(|word| tracing::warn!("{word}"));
            runtime(&command)?.block_on(dispatch(command)).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Runs a member of the store; settings that can't work are told as text, whatever the form of the log.
fn member(args: store_args::StoreArgs, words: &[String]) -> Result<ExitCode> {
    let (level, format, outputs) = (args.log_level.clone(), args.log_format, args.log_outputs.clone());
    let config = args.into_config()?;
    logging::begin(&level, format, &outputs)?;
    words.iter().for_each(|word| tracing::warn!("{word}"));
    config.validate()?;
    // Pages of two MiB would be held for a few KiB in use: a fifth of a member's memory, and no faster.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::info!(%error, "huge pages can't be turned off for this process; it will take more memory");
    }
    let run = async { store_server::run(config, until_signal()?).await.context("store") };
    match (many_threads()?.block_on(run), format) {
        (Ok(()), _) => Ok(ExitCode::SUCCESS),
        // Who reads objects gets no other line.
        (Err(error), logging::Format::Json) => {
            tracing::error!(error = format!("{error:#}"), "the member ended");
            Ok(ExitCode::FAILURE)
        }
        (Err(error), logging::Format::Console) => Err(error),
    }
}

/// `up` binds its children to the thread that starts them: it must be the main thread, which lives longest.
fn runtime(command: &Command) -> Result<tokio::runtime::Runtime> {
    match command {
        Command::Server(_) | Command::Store(_) | Command::Agent(_) | Command::Bench { .. } => many_threads(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime"),
    }
}

fn many_threads() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("starting the runtime")
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Down { data_dir, purge } => down(&up::data_dir(data_dir.as_ref()), purge).await,
        Command::Status { data_dir } => {
            let shown = status::describe(&existing(&up::data_dir(data_dir.as_ref()))?).await?;
            // A reader that has seen enough, such as head, is no fault.
            let _ = std::io::stdout().write_all(shown.as_bytes());
            Ok(())
        }
        Command::Store(args) => match args.tool {
            Some(store_args::StoreTool::Snapshot { command }) => store_snapshot::run(command).await,
            Some(store_args::StoreTool::Import(args)) => store_import::run(&args, until_signal()?).await,
            None => bail!("handled before the runtime was started"),
        },
        Command::Server(args) => server::run(*args, until_signal()?).await,
        Command::Agent(args) => agent::run(*args, until_signal()?).await,
        Command::Image { command } => image::run(command).await,
        Command::Bench { command: Bench::Store(args) } => benches::store::run(&args).await,
        Command::Supervised { .. } => bail!("handled before the runtime was started"),
    }
}

/// A token that SIGINT or SIGTERM cancels.
fn until_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

/// The layout of a folder that must be there.
fn existing(root: &std::path::Path) -> Result<up::cluster::Layout> {
    if !root.is_dir() {
        bail!(
            "there is no cluster in {}: start one with `keelson up`, or name its folder with --data-dir",
            root.display()
        );
    }
    Ok(up::cluster::Layout { root: root.canonicalize()? })
}

async fn down(root: &std::path::Path, purge: bool) -> Result<()> {
    let layout = existing(root)?;
    match up::state::stop(&layout).await? {
        up::state::Ended::InOrder => println!("stopped"),
        // Containers outlive a cluster that was cut off.
        up::state::Ended::CutOff => match up::end_orphans(&layout) {
            0 => println!("nothing was running"),
            n => {
                up::runtime::tear_down(&layout.root).await;
                println!("stopped {n} pods that a cluster which was cut off had left running");
            }
        },
    }
    if purge {
        up::purge(&layout)?;
        println!("removed {}", layout.root.display());
    }
    Ok(())
}
