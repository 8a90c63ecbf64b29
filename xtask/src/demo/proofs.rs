//! What the demo claims, each with the commands that show it and the check of what they said.

use std::time::Duration;

use serde_json::Value;

use super::Demo;
use crate::{Result, shell};

/// How long counters may take to settle when traffic ends.
const QUIET: Duration = Duration::from_secs(10);

/// Shows every claim; those that do not hold.
pub(super) async fn run(demo: &Demo) -> Result<Vec<&'static str>> {
    let mut failed = Vec::new();
    macro_rules! claim {
        ($text:literal, $proof:expr) => {
            shell::title($text);
            if $proof.await? {
                println!("{}", shell::green("it holds"));
            } else {
                println!("{}", shell::red("IT DOES NOT HOLD"));
                failed.push($text);
            }
        };
    }
    claim!("Hosts of one VLAN reach each other, by IPv4 and IPv6", one_vlan(demo));
    claim!("Hosts of two VLANs do not, even in one subnet", two_vlans(demo));
    claim!("Isolated ports reach the gate, not each other", isolation(demo));
    claim!("TCP passes with the kernel's default offloads", tcp(demo));
    claim!("Each MAC is known in its own network, at its own port", fdb(demo));
    claim!("Every frame is accounted for", counters(demo));
    claim!("A trace tells each decision for a frame", trace(demo));
    Ok(failed)
}

async fn one_vlan(demo: &Demo) -> Result<bool> {
    Ok(reaches(demo, "red1", "10.0.10.2").await?
        && reaches(demo, "red1", "fd00:10::2").await?
        && reaches(demo, "blue1", "10.0.20.2").await?)
}

async fn two_vlans(demo: &Demo) -> Result<bool> {
    println!("blue2 has an address in red's subnet too, 10.0.10.3; red1 is 10.0.10.1, one port away.");
    is_cut_off(demo, "blue2", "-I 10.0.10.3 10.0.10.1").await
}

async fn isolation(demo: &Demo) -> Result<bool> {
    Ok(reaches(demo, "guest1", "10.0.30.254").await?
        && reaches(demo, "guest2", "10.0.30.254").await?
        && is_cut_off(demo, "guest1", "10.0.30.2").await?)
}

async fn tcp(demo: &Demo) -> Result<bool> {
    // The server that red2 runs; its state in /proc/net/tcp6 is 0A, LISTEN, on port 0x1451.
    shell::wait_until("iperf3 listens in red2", QUIET, async || {
        let sockets = shell::quiet(demo.in_host("red2", "cat /proc/net/tcp6 /proc/net/tcp")).await?.stdout;
        Ok(sockets.lines().any(|line| line.contains(":1451 ") && line.contains(" 0A ")))
    })
    .await?;
    Ok(shell::show(demo.in_host("red1", "iperf3 -c 10.0.10.2 -t 2 -f g")).await?.status.success())
}

async fn fdb(demo: &Demo) -> Result<bool> {
    shell::show_success(demo.control(["fdb", "list"])).await?;
    let entries = json(demo, &["fdb", "list"]).await?;
    let places = |mac: &str| -> Vec<(String, String)> {
        let entries = entries.as_array().into_iter().flatten().filter(|entry| entry["mac"] == mac);
        entries.map(|entry| (text(&entry["network"]), text(&entry["port"]))).collect()
    };
    for (host, network) in [("red1", "red"), ("red2", "red"), ("blue1", "blue"), ("guest1", "guest")] {
        let mac = mac_of(demo, host).await?;
        if places(&mac) != [(network.to_owned(), host.to_owned())] {
            println!("{host} has {mac}, which is not in network {network} at port {host} alone");
            return Ok(false);
        }
    }
    Ok(true)
}

async fn counters(demo: &Demo) -> Result<bool> {
    let mut totals = Value::Null;
    let settled = shell::wait_until("received + originated + replicated = the rest", QUIET, async || {
        totals = json(demo, &["stats"]).await?["conservation"].take();
        let sum = |names: [&str; 3]| names.iter().map(|name| totals[name].as_u64()).sum::<Option<u64>>();
        let came = sum(["received", "originated", "replicated"]);
        Ok(came.is_some_and(|frames| frames > 0) && came == sum(["transmitted", "consumed", "dropped"]))
    });
    let settled = settled.await;
    shell::show_success(demo.control(["stats"])).await?;
    println!(
        "received {} + originated {} + replicated {}  =  transmitted {} + consumed {} + dropped {}",
        totals["received"],
        totals["originated"],
        totals["replicated"],
        totals["transmitted"],
        totals["consumed"],
        totals["dropped"]
    );
    Ok(settled.is_ok())
}

async fn trace(demo: &Demo) -> Result<bool> {
    // From a made-up station to red2: an IPv4 header's beginning, tagged with the VLAN ID.
    let red2 = mac_of(demo, "red2").await?.replace(':', "");
    let frame = |vlan: &str| format!("{red2}0200000000018100{vlan}0800{:0<92}", "45000014");
    println!("A frame to red2 comes in at the uplink with red's tag (VLAN 10):");
    let red = frame("000a");
    shell::show_success(demo.control(["trace", "--port", "uplink", "--frame", &red])).await?;
    let passed = json(demo, &["trace", "--port", "uplink", "--frame", &red]).await?;
    println!("The same frame with a tag that the uplink does not carry (VLAN 40):");
    let foreign = frame("0028");
    shell::show_success(demo.control(["trace", "--port", "uplink", "--frame", &foreign])).await?;
    let dropped = json(demo, &["trace", "--port", "uplink", "--frame", &foreign]).await?;
    Ok(passed["outcome"] == "unicast"
        && passed["ports"] == serde_json::json!(["red2"])
        && dropped["outcome"] == "drop"
        && dropped["reason"] == "vlan_not_allowed")
}

/// Every one of three pings is answered.
async fn reaches(demo: &Demo, host: &str, to: &str) -> Result<bool> {
    Ok(shell::show(demo.in_host(host, &format!("ping -c 3 -i 0.2 -W 2 {to}"))).await?.status.success())
}

/// None of three pings is answered; ping(8) ends with 1 then, and with 2 on any other trouble.
async fn is_cut_off(demo: &Demo, host: &str, to: &str) -> Result<bool> {
    Ok(shell::show(demo.in_host(host, &format!("ping -c 3 -i 0.2 -W 1 {to}"))).await?.status.code()
        == Some(1))
}

async fn mac_of(demo: &Demo, host: &str) -> Result<String> {
    let output = shell::quiet(demo.in_host(host, "cat /sys/class/net/eth0/address")).await?;
    Ok(output.stdout.trim().to_owned())
}

async fn json(demo: &Demo, args: &[&str]) -> Result<Value> {
    let output = shell::quiet(demo.control(std::iter::once("--json").chain(args.iter().copied()))).await?;
    if !output.status.success() {
        return Err(format!("vswitchctl --json {}: {}", args.join(" "), output.stderr.trim()).into());
    }
    Ok(serde_json::from_str(&output.stdout)?)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
