//! `lbctl`: shows and changes what the daemon has, over its REST API.

mod apply;
mod arguments;
mod bgp;
mod bundle;
pub(crate) mod client;
mod completions;
mod config;
mod create;
mod describe;
mod diff;
mod doctor;
mod drain;
mod edit;
mod events;
mod export;
mod fib;
mod resources;
mod sessions;
mod show;
mod table;
mod tls;
mod tokens;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use lb_api_types::problem::Problem;
use lb_api_types::resource::ConditionStatus;
use lb_api_types::view::{Change, Version};

pub use self::arguments::Arguments;
use self::arguments::{
    About, Bgp, Clear, Command, Create, FibQuestion, Format, How, Kind, KindWord, Show, ShowBgp,
};
use self::client::Client;
pub use self::client::Server;
use crate::read::Path;

/// What a command says when it is carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes(String),
    /// The command asks something, and the answer is no.
    No(String),
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Yes(text)
    }
}

/// Why a command is not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("lbd does not answer at {server}: {why}; {remedy}")]
    Unreachable { server: String, why: String, remedy: &'static str },
    #[error("{}", words(.0))]
    Refused(Box<Problem>),
    #[error("{0}")]
    Other(String),
    /// The words of the command line do not fit together.
    #[error("{0}")]
    Usage(String),
}

/// The problem's sentence; the field's name stands in it, or is added.
fn words(problem: &Problem) -> String {
    if !problem.errors.is_empty() {
        let all: Vec<_> = problem.errors.iter().map(|error| error.detail.as_str()).collect();
        return all.join("; ");
    }
    match &problem.pointer {
        Some(pointer)
            if !pointer.rsplit('/').next().is_some_and(|field| problem.detail.contains(field)) =>
        {
            format!("{} ({})", problem.detail, dotted(pointer))
        }
        Some(_) | None => problem.detail.clone(),
    }
}

/// A field as files and sentences name it: `spec.backends[0].port` for `/spec/backends/0/port`.
fn dotted(pointer: &str) -> String {
    let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
    let path = steps.fold(Path::default(), |path, step| match step.parse() {
        Ok(index) => path.index(index),
        Err(_) => path.field(&step),
    });
    path.to_string()
}

/// Carries a command line out.
pub async fn run(arguments: Arguments) -> ExitCode {
    let Arguments { server, token_file, ca_file, cert_file, key_file, output, command } = arguments;
    let identity = cert_file.as_deref().zip(key_file.as_deref());
    let outcome = match Client::new(server, token_file.as_deref(), ca_file.as_deref(), identity) {
        Ok(client) => carry_out(&client, command, output).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Answer::Yes(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Answer::No(text)) => {
            print(&text);
            ExitCode::from(4)
        }
        Err(error) => {
            eprintln!("{error}");
            match error {
                CtlError::Unreachable { .. } => ExitCode::from(3),
                CtlError::Usage(_) => ExitCode::from(2),
                CtlError::Refused(_) | CtlError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// The name of what a verb is about; where there is only one, it need not be said.
fn name_of(verb: &str, kind: Kind, name: Option<String>) -> Result<String, CtlError> {
    let noun = kind.noun();
    name.or_else(|| kind.only().map(str::to_owned))
        .ok_or_else(|| CtlError::Usage(format!("say which one: lbctl {verb} {noun} NAME")))
}

/// The kind and the name, wherever the name stands.
fn parted(word: KindWord, name: Option<String>) -> Result<(Kind, Option<String>), CtlError> {
    let KindWord { kind, name: behind } = word;
    match (behind, name) {
        (Some(behind), Some(name)) => {
            // One of a VIP's backends may be named in two words.
            if kind == Kind::Backends {
                return Ok((kind, Some(format!("{behind}/{name}"))));
            }
            let noun = kind.noun();
            Err(CtlError::Usage(format!("say one name: {noun}/{behind} or {noun} {name}")))
        }
        (behind, name) => Ok((kind, behind.or(name))),
    }
}

async fn show_bgp(client: &Client, what: ShowBgp, format: Format) -> Result<String, CtlError> {
    match what {
        ShowBgp::Summary => bgp::summary(client, format).await,
        ShowBgp::Neighbors { name: Some(name), routes: Some(which), about } => {
            bgp::routes_of(client, &name, (which, &about), format).await
        }
        ShowBgp::Neighbors { about, .. } if about != About::default() => Err(CtlError::Other(
            "say whose routes and which: show bgp neighbors NAME received-routes, advertised-routes or routes".into(),
        )),
        ShowBgp::Neighbors { name, .. } => {
            bgp::neighbours(client, name.as_deref(), format).await
        }
        ShowBgp::Routes { prefix: Some(prefix), .. } => {
            show::get(client, Kind::Routes, Some(&prefix), &show::Part::default(), format).await
        }
        ShowBgp::Routes { prefix: None, selected, about } => {
            bgp::routes_about(client, selected, &about, format).await
        }
    }
}

async fn ask_bgp(client: &Client, what: Bgp, format: Format) -> Result<String, CtlError> {
    match what {
        Bgp::Explain { destination } => bgp::explain(client, &destination, format).await,
        Bgp::Shutdown { name, message } => {
            sessions::shut_down(client, &name, message.as_deref()).await
        }
        Bgp::Start { name } => sessions::start(client, &name).await,
        Bgp::Drain { name } => sessions::drain(client, &name, true).await,
        Bgp::Undrain { name } => sessions::drain(client, &name, false).await,
    }
}

async fn carry_out(client: &Client, command: Command, format: Format) -> Result<Answer, CtlError> {
    let text = match command {
        Command::Get {
            kind: KindWord { kind: Kind::Events, name: None },
            name: None,
            watch,
            ..
        } => {
            return events::show(client, false, &[], watch, format).await;
        }
        Command::Get { kind, name, selector, limit, filter, watch } => {
            let (kind, name) = parted(kind, name)?;
            let part = show::Part { selector, limit, filter };
            if watch {
                return events::get(client, kind, name.as_deref(), &part, format).await;
            }
            show::get(client, kind, name.as_deref(), &part, format).await?
        }
        Command::Describe { kind, name } => {
            let (kind, name) = parted(kind, name)?;
            let name = name_of("describe", kind, name)?;
            show::describe(client, kind, &name, format).await?
        }
        Command::Clear { what: Clear::Bgp { name, soft } } => {
            sessions::clear(client, &name, soft).await?
        }
        Command::Bgp { what } => ask_bgp(client, what, format).await?,
        Command::Show { what: Show::Bgp { destination, what } } => match (what, destination) {
            (Some(what), _) => show_bgp(client, what, format).await?,
            (None, Some(destination)) => bgp::explain(client, &destination, format).await?,
            (None, None) => bgp::summary(client, format).await?,
        },
        Command::Create { what: Create::Token(new) } => tokens::create(client, &new).await?,
        Command::Create { what } => {
            let made = create::create(client, what, format).await?;
            return finish(client, made.said, &made.changes, made.how).await;
        }
        Command::Apply { file, terms, how } => {
            let (said, there) = apply::apply(client, &file, how.dry_run, &terms, format).await?;
            return finish(client, said, &there, how).await;
        }
        Command::Config { what } => config::carry_out(client, what, format).await?,
        Command::Diff { file } => return diff::diff(client, &file).await,
        Command::Delete { kind: Some(kind), name, dry_run, .. } => {
            let (kind, name) = parted(kind, name)?;
            let name = name_of("delete", kind, name)?;
            apply::delete_one(client, kind, &name, dry_run).await?
        }
        Command::Delete { file, dry_run, .. } => {
            apply::delete_files(client, &file, dry_run).await?
        }
        Command::Drain(what) => drain::set(client, &what, true).await?,
        Command::Undrain(what) => drain::set(client, &what, false).await?,
        Command::Edit { kind, name, dry_run } => {
            let (kind, name) = parted(kind, name)?;
            let name = name_of("edit", kind, name)?;
            edit::edit(client, kind, &name, dry_run).await?
        }
        Command::Bundle => bundle::bundle(client).await?,
        Command::Man { folder } => man(&folder)?,
        Command::Events { flows, kind, watch } => {
            return events::show(client, flows, &kind, watch, format).await;
        }
        Command::Export { all, hidden } => export::export(client, all, hidden).await?,
        Command::Version => version(client, format).await?,
        Command::Doctor { what: None, .. } => return doctor::doctor(client, format).await,
        Command::Doctor { what: Some(what), repair } => {
            return fib::audit(client, what, repair, format).await;
        }
        Command::Fib { what: FibQuestion::Lookup(packet) } => {
            return fib::lookup(client, &packet, format).await;
        }
        Command::Completions { shell } => completions::script(shell),
    };
    Ok(Answer::Yes(text))
}

/// Waits for what was changed, if that is asked for.
async fn finish(
    client: &Client,
    said: String,
    changes: &[Change],
    how: How,
) -> Result<Answer, CtlError> {
    if !how.wait {
        return Ok(Answer::Yes(said));
    }
    print(&said);
    wait::until_carried(client, changes, Duration::from_secs(how.timeout.into())).await
}

/// Both versions; a daemon that does not answer is said beside its client's.
async fn version(client: &Client, format: Format) -> Result<String, CtlError> {
    let own = env!("CARGO_PKG_VERSION");
    // Its own is said also where the daemon's cannot be.
    let alone = |_: &CtlError| print(&format!("lbctl  {own}\n"));
    let told = client.get("version").await.inspect_err(alone)?;
    match format {
        Format::Json => return Ok(show::json(&serde_json::json!({"lbctl": own, "lbd": told}))),
        Format::Yaml => return show::yaml(&serde_json::json!({"lbctl": own, "lbd": told})),
        Format::Table | Format::Wide | Format::Name => {}
    }
    let daemon: Version = show::typed(told).inspect_err(alone)?;
    let mut text = format!("lbctl  {own}\nlbd    {}\n", daemon.status.version);
    let not = daemon.status.conditions.iter().filter(|it| it.status != ConditionStatus::True);
    text.extend(not.map(|condition| format!("Warning: {}\n", condition.message)));
    Ok(text)
}

/// A page for lbctl and one for each of its commands.
fn man(folder: &std::path::Path) -> Result<String, CtlError> {
    let command = Arguments::command().name("lbctl");
    clap_mangen::generate_to(command, folder).map_err(|error| {
        CtlError::Other(format!("cannot write into {}: {error}; make the folder", folder.display()))
    })?;
    Ok(format!("the pages are in {}: `man -l {}/lbctl.1`\n", folder.display(), folder.display()))
}

/// Writes to stdout. What a full disk did not take whole is no backup: that ends the command.
fn print(text: &str) {
    if let Err(error) = write(&mut std::io::stdout().lock(), text) {
        eprintln!("the answer cannot be written: {error}");
        std::process::exit(1);
    }
}

/// A reader that has gone (`| head`) is no mistake.
fn write(out: &mut impl std::io::Write, text: &str) -> std::io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
pub(crate) mod tests;
