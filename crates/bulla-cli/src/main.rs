//! The `bulla` command.

mod agent;
mod api_settings;
mod bench;
mod cli;
mod commands;
mod control;
mod failure;
mod journal;
mod logs;
mod observe;
mod output;
mod queue_settings;
mod settings;
mod tls_settings;
mod when;

use std::process::ExitCode;

use clap::Parser;

use cli::{AgentCommand, ApiCommand, Cli, Command, QueueCommand};
use control::bus::Bus;
use failure::Result;
use logs::LogFormat;
use output::Output;
use settings::{Home, Settings};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(failure) = start_logs(&cli) {
        eprintln!("bulla: {failure}");
        return ExitCode::from(failure.code());
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(cli.command, Command::Agent(AgentCommand::Run(_))) {
        // One control plane's calls to one agent: a second thread would cost more in waking each other
        // than it does (docs/benchmarks.md).
        runtime.worker_threads(1);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bulla: can't start: {error}");
            return ExitCode::from(1);
        }
    };
    let json = cli.json;
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                let error = serde_json::json!({ "error": failure.to_string() });
                eprintln!("{error}");
            } else {
                eprintln!("bulla: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let (home, out) = (Home::new(&cli.home), Output::new(cli.json));
    match &cli.command {
        Command::Init(args) => commands::init::run(&home, args, out).await,
        Command::Up(args) => commands::up::run(&home, args, out).await,
        Command::Serve(args) => commands::serve::run(&home, args, out).await,
        Command::Doctor => commands::doctor::run(&home, out).await,
        Command::Component(command) => commands::component::run(&home, command, out).await,
        Command::Agent(command) => commands::agent::run(&home, command, out).await,
        Command::Group(command) => commands::group::run(&home, command, out).await,
        Command::AccessKey(command) => commands::access_key::run(&home, command, out).await,
        Command::Broker(command) => commands::broker::run(&home, command, out).await,
        Command::Root(command) => commands::root::run(&home, command, out).await,
        Command::Keystore(command) => commands::keystore::run(&home, command, out).await,
        Command::Kek(command) => commands::kek::run(&home, command, out).await,
        Command::Policy(command) => commands::policy::run(&home, command, out).await,
        Command::Db(command) => commands::db::run(&home, command, out).await,
        Command::Peers(args) => commands::peers::run(&home, args, out).await,
        Command::Call(args) => commands::call::call(&home, args, out).await,
        Command::Cast(args) => commands::call::cast(&home, args, false, out).await,
        Command::Fanout(args) => commands::call::cast(&home, args, true, out).await,
        Command::Tap(args) => commands::tap::run(&home, args, out).await,
        Command::Audit(command) => commands::audit::run(&home, command, out).await,
        Command::Api(ApiCommand::Openapi) => {
            out.line(bulla_api::openapi().trim_end());
            Ok(())
        }
        Command::Queue(command) => commands::queue_ask::run(&home, command, out).await,
        Command::Attack(args) => commands::attack::run(&home, args, out).await,
        Command::Package(args) => commands::package::run(&args.folder, out),
        Command::Bench(args) => bench(&home, args.clone(), out).await,
    }
}

/// The bench on the bus that it names, or on one in memory.
async fn bench(home: &Home, args: bench::BenchArgs, out: Output) -> Result<()> {
    let mut settings = Settings::load(home.dir())?;
    settings.bus.url.clone_from(&args.bus);
    settings.bus.carrier = args.carrier.unwrap_or(settings.bus.carrier);
    let bus = match Bus::from_settings(&settings.bus, "bench")? {
        Bus::Memory(_) => None,
        Bus::Rabbit(options) => Some(bench::Bus::Rabbit(options)),
        Bus::Oslo(oslo) => Some(bench::Bus::Oslo(oslo)),
        Bus::Queue(options) => Some(bench::Bus::Queue(match &args.bus {
            Some(url) if url.starts_with("queue+https:") && settings.bus.client_cert.is_none() => {
                Box::new(control::queue_bus::as_operator(home, &settings, url)?)
            }
            _ => options,
        })),
    };
    Ok(bench::run(args, bus, out.is_json()).await?)
}

/// As JSON with `--json`, unless the environment says how.
fn start_logs(cli: &Cli) -> Result<()> {
    let service = matches!(
        &cli.command,
        Command::Serve(_)
            | Command::Agent(AgentCommand::Run(_))
            | Command::Queue(QueueCommand::Serve(_))
    );
    let default = if cli.json { LogFormat::Json } else { LogFormat::Text };
    logs::start(service, LogFormat::from_env()?.unwrap_or(default));
    Ok(())
}
