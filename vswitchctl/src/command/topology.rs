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
    // Mistakes are found here, where the file's lines are known.
    let topology = topology::read(&apply.file)?;
    let query = ApplyQuery { dry_run: apply.dry_run, force: apply.force, session: args::session() };
    let changed: Changes = client.put(paths::CONFIG, &query, &topology).await?;
    render(&changed, json, changes)
}

pub(crate) async fn diff(client: &Client, file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let changed: Changes = client.post(paths::CONFIG_DIFF, &(), &topology::read(file)?).await?;
    print(&render(&changed, json, changes)?)?;
    Ok(if changed.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(crate) async fn dump(client: &Client, json: bool) -> Result<String, Failure> {
    let running: Topology = client.get(paths::CONFIG, &()).await?;
    render(&running, json, topology::to_toml)
}
