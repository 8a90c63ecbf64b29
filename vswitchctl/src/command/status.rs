//! `status`.

use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::response::Status;

use super::render;
use crate::failure::Failure;
use crate::table::{Table, facts};

pub(crate) async fn run(client: &Client, json: bool) -> Result<String, Failure> {
    let status: Status = client.get(paths::STATUS, &()).await?;
    render(&status, json, text)
}

fn text(status: &Status) -> String {
    let ports = &status.ports;
    let mut out = facts(&[
        ("switch", status.name.clone()),
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("uptime", uptime(status.uptime_seconds)),
        (
            "ports",
            format!("{}: {} up, {} down, {} waiting", ports.total, ports.up, ports.down, ports.waiting),
        ),
        ("networks", status.networks.to_string()),
        ("fdb", format!("{} of {} entries", status.fdb.entries, status.fdb.capacity)),
    ]);
    let mut workers = Table::new(["WORKER", "CPU", "QUEUES", "STATE"]);
    for worker in &status.workers {
        workers.row([
            worker.index.to_string(),
            worker.cpu.map_or("any".to_owned(), |cpu| cpu.to_string()),
            worker.queues.to_string(),
            if worker.asleep { "asleep" } else { "polling" }.to_owned(),
        ]);
    }
    out.push_str(&format!("\n{workers}"));
    if !status.health.is_empty() {
        let mut health = Table::new(["PART", "HEALTH", "WHAT"]);
        for part in &status.health {
            let state = if part.ok { "ok" } else { "not ok" };
            health.row([part.part.clone(), state.to_owned(), part.text.clone()]);
        }
        out.push_str(&format!("\n{health}"));
    }
    out
}

/// As in `2d 03:04:05`.
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        assert_eq!(uptime(0), "00:00:00");
        assert_eq!(uptime(86_399), "23:59:59");
        assert_eq!(uptime(2 * 86_400 + 3 * 3_600 + 4 * 60 + 5), "2d 03:04:05");
    }
}
