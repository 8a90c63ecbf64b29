//! `vswitchctl` as its users see it, against a daemon with a fixed state: text, JSON, exit codes, errors.
//! `UPDATE_GOLDEN=1 cargo test` writes `tests/golden/` anew; read the difference before it is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed test may panic in its own functions too

mod fake;
mod state;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fake::Fake;

fn vswitchctl(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchctl"));
    command.env_remove("SSH_CONNECTION").env("VSWITCH_SOCKET", socket).args(words(line));
    command
}

/// The words of a line; `''` is an empty one.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().map(|word| if word == "''" { "" } else { word })
}

fn run(socket: &Path, line: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = vswitchctl(socket, line).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn scratch_file(daemon: &Fake, name: &str, text: &str) -> String {
    let path = daemon.socket().with_file_name(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn answers_as_text_and_as_json() {
    let daemon = Fake::start(state::answer).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let commands = [
        ("status", "status"),
        ("network-list", "network list"),
        ("tenant-list", "tenant list"),
        ("tenant-show", "tenant show acme"),
        ("tenant-show-without-networks", "tenant show beta"),
        ("port-list", "port list"),
        ("port-show", "port show web1"),
        ("port-show-waiting", "port show up"),
        ("port-show-vhost-user", "port show vm1"),
        ("port-add", "port add web1 --vlan 10"),
        ("acl-list", "acl list"),
        ("acl-show", "acl show web"),
        ("fdb-list", "fdb list"),
        ("fdb-flush", "fdb flush --port web1"),
        ("stats", "stats"),
        ("dump", "dump"),
        ("trace", "trace --port web1 --frame ffffffffffff0200000000110806"),
    ];
    for (name, line) in commands {
        for (line, file) in
            [(line.to_owned(), format!("{name}.txt")), (format!("--json {line}"), format!("{name}.json"))]
        {
            let (code, stdout, stderr) = run(&daemon.socket(), &line);
            assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
            if file.ends_with("json") {
                serde_json::from_str::<serde_json::Value>(&stdout).expect(&line);
            }
            let path = golden.join(file);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, &stdout).unwrap();
            }
            let expected = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(stdout, expected, "{line}");
        }
    }
}

#[test]
fn the_dump_is_a_topology_file_again() {
    let daemon = Fake::start(state::answer).unwrap();
    let (_, dump, _) = run(&daemon.socket(), "dump");
    let file = scratch_file(&daemon, "dump.toml", &dump);
    let (code, stdout, stderr) = run(&daemon.socket(), &format!("apply {file}"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("+ tenant acme: max-macs 500\n+ network blue\n+ network red: "), "{stdout}");
}

#[test]
fn requests_say_what_the_arguments_say() {
    let daemon = Fake::start(state::answer).unwrap();
    let file = scratch_file(&daemon, "lab.toml", "[[port]]\nname = \"web1\"\nmax-macs = 5\n");
    let cases = [
        ("port add web1 --vlan 10", "POST /v1/ports?force=false", r#"{"name":"web1","vlan":10}"#),
        (
            "network add red --address 10.0.0.254/24 --address fd00::1/64",
            "POST /v1/networks",
            r#"{"name":"red","address":["10.0.0.254/24","fd00::1/64"]}"#,
        ),
        ("port set web1 --native '' --force", "PATCH /v1/ports/web1?force=true", r#"{"native":null}"#),
        ("network set red --acl-egress none", "PATCH /v1/networks/red", r#"{"acl":{"egress":null}}"#),
        ("acl add web --default allow", "POST /v1/acls", r#"{"name":"web","default":"allow"}"#),
        ("acl del web", "DELETE /v1/acls/web", ""),
        (
            "acl rule add web deny --at 2 --protocol tcp --destination-port 1-1023 --tcp-flags syn/syn,ack",
            "POST /v1/acls/web/rules?at=2",
            r#"{"action":"deny","protocol":"tcp","destination_port":"1-1023","tcp_flags":"syn/syn,ack"}"#,
        ),
        ("acl rule del web 2", "DELETE /v1/acls/web/rules/2", ""),
        ("tenant set acme --max-macs 500", "PATCH /v1/tenants/acme", r#"{"max_macs":500}"#),
        (
            "tenant set acme --max-macs none --max-ports 2",
            "PATCH /v1/tenants/acme",
            r#"{"max_macs":null,"max_ports":2}"#,
        ),
        ("tenant del ../x", "DELETE /v1/tenants/..%2Fx", ""),
        ("fdb list --network red --port web1", "GET /v1/fdb?network=red&port=web1", ""),
        ("fdb flush --network red", "POST /v1/fdb/flush", r#"{"network":"red"}"#),
        ("port show ../x?y", "GET /v1/ports/..%2Fx%3Fy", ""),
        ("trace --port p --frame 02:00", "POST /v1/trace", r#"{"port":"p","frame":"0200"}"#),
    ];
    for (line, request, body) in cases {
        run(&daemon.socket(), line);
        let (method, uri, sent) = daemon.seen().pop().expect(line);
        assert_eq!((format!("{method} {uri}").as_str(), sent.as_str()), (request, body), "{line}");
    }

    let mut apply = vswitchctl(&daemon.socket(), &format!("apply {file} --dry-run"));
    assert!(apply.env("SSH_CONNECTION", "192.0.2.7 51234 192.0.2.1 22").status().unwrap().success());
    let (_, uri, sent) = daemon.seen().pop().unwrap();
    assert_eq!(uri, "/v1/config?dry_run=true&force=false&session=192.0.2.7");
    assert!(sent.contains(r#""port":[{"name":"web1","max_macs":5}]"#), "{sent}");
}

#[test]
fn diff_says_by_its_exit_code_whether_something_differs() {
    let daemon = Fake::start(state::answer).unwrap();
    let file = scratch_file(&daemon, "lab.toml", "");
    let (code, stdout, _) = run(&daemon.socket(), &format!("diff {file}"));
    assert_eq!(code, 1);
    assert!(stdout.contains("+ port web1: access red, max-macs 32\n"), "{stdout}");

    let same = Fake::start(|_, _| (200, br#"{"changes": []}"#.to_vec())).unwrap();
    assert_eq!(run(&same.socket(), &format!("diff {file}")), (0, String::new(), String::new()));
}

#[test]
fn a_refusal_is_one_line_and_exit_code_1() {
    let daemon = Fake::start(state::answer).unwrap();
    let line = "vswitchctl: network \"red\" is used by port web1; remove these ports first, or give them another network\n";
    assert_eq!(run(&daemon.socket(), "network del red"), (1, String::new(), line.to_owned()));
}

#[test]
fn a_daemon_that_is_not_there_is_exit_code_3() {
    let (code, stdout, stderr) = run(Path::new("/nonexistent/socket"), "status");
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert_eq!(
        stderr,
        "vswitchctl: the daemon cannot be reached at /nonexistent/socket: No such file or directory (os error 2); \
         start it with `vswitch`, or name its socket with --socket\n"
    );
}

#[test]
fn answers_that_cannot_be_read_are_exit_code_3() {
    let strange: [fake::Answer; 4] = [
        |_, _| (200, b"hello".to_vec()),
        |_, _| (500, b"<html>".to_vec()),
        |_, _| (200, b"{}".to_vec()),
        |_, _| (200, vec![b' '; (32 << 20) + 1]),
    ];
    for (i, answer) in strange.into_iter().enumerate() {
        let daemon = Fake::start(answer).unwrap();
        let (code, stdout, stderr) = run(&daemon.socket(), "status");
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (3, "", 1), "{i}: {stderr}");
    }
}

#[test]
fn misuse_is_one_useful_line_and_exit_code_2() {
    let daemon = Fake::start(state::answer).unwrap();
    let empty = scratch_file(&daemon, "empty.pcap", "");
    let cases = [
        ("", "a command is missing"),
        ("port", "a command is missing"),
        ("prot list", "port"),
        ("port add", "<NAME>"),
        ("port add web1 --acess red", "--access"),
        ("port add web1 --kind dpdk", "use auto, xdp, tap, packet or vhost-user"),
        ("port add web1 --role master", "use server or client"),
        ("port add web1 --vlan 4095", "use 1 to 4094"),
        ("port add web1 --vlan 10 --access red", "cannot be used with"),
        ("port add web1 --trunk red:0", "write NET:VID"),
        ("port add web1 --mtu big", "--mtu"),
        ("port add web1 --storm broadcast=5", "1000pps"),
        ("port add web1 --storm all=5pps", "broadcast, multicast or unknown"),
        ("network add red --ageing 300", "a whole number and a unit"),
        ("network add red --vni 16777216", "is not a VNI; use 0 to 16777215"),
        ("vxlan peer add red nowhere", "invalid IP address syntax"),
        ("network add red --address 10.0.0.254", "is not an address with a prefix length"),
        ("network list now", "unexpected argument"),
        ("tenant set acme", "--max-macs"),
        ("tenant set acme --max-ports all", "use a whole number, or none"),
        ("fdb add red 02:00 --port web1", "02:00:00:00:00:11"),
        ("fdb add red 02:00:00:00:00:11", "--port"),
        ("apply", "<FILE>"),
        ("apply /nonexistent.toml", "/nonexistent.toml: No such file"),
        ("trace --port web1", "--frame"),
        ("trace --port web1 --frame xyz", "hexadecimal"),
        ("trace --port web1 --frame 00 --pcap x", "cannot be used with"),
        (&format!("trace --port web1 --pcap {empty}"), "empty.pcap: "),
        ("--socket", "--socket"),
    ];
    for (line, hint) in cases {
        let (code, stdout, stderr) = run(&daemon.socket(), line);
        assert_eq!((code, stdout.as_str()), (2, ""), "{line}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
        assert!(stderr.contains(hint), "{line}: {stderr}");
    }
    assert_eq!(daemon.seen(), [], "nothing was sent");
}

#[test]
fn a_file_with_mistakes_is_one_line_each_and_exit_code_2() {
    let daemon = Fake::start(state::answer).unwrap();
    let file = scratch_file(&daemon, "bad.toml", "[[port]]\nname = \"web1\"\naccess = \"red\"\nmtu = 1\n");
    for command in ["apply", "diff"] {
        let (code, stdout, stderr) = run(&daemon.socket(), &format!("{command} {file}"));
        assert_eq!((code, stdout.as_str()), (2, ""));
        let expected = format!(
            "{file}:3:1: port[0].access: network \"red\" does not exist; add [[network]] name = \"red\"\n\
             {file}:4:1: port[0].mtu: 1 is out of range; use 68 to 65535 bytes\n"
        );
        assert_eq!(stderr, expected);
    }
    assert_eq!(daemon.seen(), [], "nothing was sent");
}

#[test]
fn watching_goes_on_until_nobody_reads() {
    let daemon = Fake::start(state::answer).unwrap();
    let mut child =
        vswitchctl(&daemon.socket(), "--json stats --watch").stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let documents = out.lines().map_while(Result::ok).filter(|line| line == "}");
    assert_eq!(documents.take(2).count(), 2);
    // The reader is gone with the iterator.
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let status = end.recv_timeout(Duration::from_secs(20)).expect("it ends by itself").unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn help_is_an_answer() {
    for line in ["--help", "help port add", "--version"] {
        let (code, stdout, stderr) = run(Path::new("/nonexistent"), line);
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        assert!(stdout.ends_with('\n'), "{line}");
    }
}
