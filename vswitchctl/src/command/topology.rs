//! `apply`, `diff` and `dump`.

use std::path::Path;
use std::process::ExitCode;

use vswitch_api::client::Client;
use vswitch_api::request::ApplyQuery;
use vswitch_api::response::Changes;
use vswitch_api::{Topology, paths, topology};

use super::{changes, render};
use crate::args::{self, Apply};
use crate::failure::Failure;
use crate::print;

pub(crate) async fn apply(client: &Client, apply: &Apply, json: bool) -> Result<String, Failure> {
    let topology = load(&apply.file)?;
    let query = ApplyQuery { dry_run: apply.dry_run, force: apply.force, session: args::session() };
    let changed: Changes = client.put(paths::CONFIG, &query, &topology).await?;
    render(&changed, json, changes)
}

pub(crate) async fn diff(client: &Client, file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let changed: Changes = client.post(paths::CONFIG_DIFF, &(), &load(file)?).await?;
    print(&render(&changed, json, changes)?)?;
    Ok(if changed.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(crate) async fn dump(client: &Client, json: bool) -> Result<String, Failure> {
    let running: Topology = client.get(paths::CONFIG, &()).await?;
    render(&running, json, topology::to_toml)
}

/// Mistakes are found here, where the file's lines are known.
fn load(file: &Path) -> Result<Topology, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::invalid(format!("{name}: {error}; name a topology file that can be read"))
    })?;
    topology::load(&text, &name)
        .map_err(|problems| Failure::Invalid(problems.iter().map(ToString::to_string).collect()))
}
