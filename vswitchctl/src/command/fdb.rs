//! `fdb`.

use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::{FdbKey, FdbQuery};
use vswitch_api::response::{Changes, FdbEntry, Flushed};
use vswitch_api::topology::StaticEntry;

use super::{changes, render};
use crate::args::{Fdb, Place};
use crate::failure::Failure;
use crate::table::Table;

pub(crate) async fn run(client: &Client, command: Fdb, json: bool) -> Result<String, Failure> {
    match command {
        Fdb::List { network, port } => {
            let entries: Vec<FdbEntry> = client.get(paths::FDB, &FdbQuery { network, port }).await?;
            render(&entries, json, |e| list(e))
        }
        Fdb::Add { network, mac, place: Place { port, vtep } } => {
            let entry = StaticEntry { network, mac, port, vtep };
            let changed: Changes = client.post(paths::FDB, &(), &entry).await?;
            render(&changed, json, changes)
        }
        Fdb::Del { network, mac } => {
            let changed: Changes = client.delete(paths::FDB, &FdbKey { network, mac }).await?;
            render(&changed, json, changes)
        }
        Fdb::Flush { network, port } => {
            let flushed: Flushed = client.post(paths::FDB_FLUSH, &(), &FdbQuery { network, port }).await?;
            render(&flushed, json, |f| format!("{} entries flushed\n", f.flushed))
        }
    }
}

fn list(entries: &[FdbEntry]) -> String {
    let mut table = Table::new(["NETWORK", "MAC", "PORT", "IDLE", "FLAGS"]);
    for entry in entries {
        let flags = [(entry.is_static, "static"), (entry.held, "held")];
        let flags: Vec<_> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
        let idle = if entry.is_static { String::new() } else { format!("{}s", entry.idle_seconds) };
        let vtep = entry.vtep.map(|vtep| format!("vtep {vtep}"));
        let place = entry.port.clone().or(vtep).unwrap_or_default();
        table.row([entry.network.clone(), entry.mac.to_string(), place, idle, flags.join(" ")]);
    }
    table.to_string()
}
