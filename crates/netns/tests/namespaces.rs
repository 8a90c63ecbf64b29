//! Namespaces, links and processes on the real kernel (needs root).

#![allow(clippy::unwrap_used, clippy::expect_used)] // allowed in tests, but clippy does not see that for their set-up

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use vswitch_netns::{Link, Namespace, PacketSocket, Process, Scratch, Veth, veth};

const SOON: Duration = Duration::from_secs(5);

/// Two namespaces joined by a veth, both ends up, with an IPv4 and an IPv6 address each.
fn joined() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    veth((&a, "eth0"), (&b, "eth0"), Veth::default()).unwrap();
    for (namespace, number) in [(&a, 1), (&b, 2)] {
        namespace.add_address("eth0", &format!("10.0.0.{number}/24")).unwrap();
        namespace.add_address("eth0", &format!("fd00::{number}/64")).unwrap();
        namespace.set_up("eth0").unwrap();
    }
    a.wait_for_link("eth0", SOON, |link| link.is_some_and(|link| link.is_running)).unwrap();
    (a, b)
}

#[test]
fn joined_namespaces_reach_each_other_at_once() {
    let (a, _b) = joined();
    a.run("ping", ["-c", "1", "-W", "5", "10.0.0.2"]).unwrap();
    a.run("ping", ["-c", "1", "-W", "5", "fd00::2"]).unwrap();
}

#[tokio::test]
async fn namespaces_can_be_used_from_within_an_event_loop() {
    joined();
}

#[test]
fn a_namespace_holds_its_own_links_only() {
    let (a, _b) = joined();
    let names: Vec<String> = a.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "eth0"]);
    assert_eq!(a.run("ls", ["/sys/class/net"]).unwrap(), "eth0\nlo\n", "and /sys shows the same");
}

#[test]
fn link_attributes_are_set_and_read_back() {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    veth((&a, "near"), (&b, "far"), Veth { mtu: 9000, queues: 4 }).unwrap();
    let far = b.link("far").unwrap().unwrap();
    assert_eq!((far.mtu, far.is_up, far.is_running), (9000, false, false));
    assert_eq!(a.run("sh", ["-c", "ls -d /sys/class/net/near/queues/rx-* | wc -l"]).unwrap().trim(), "4");
    b.set_mac("far", [2, 0, 0, 0, 0, 1]).unwrap();
    b.set_mtu("far", 1400).unwrap();
    b.set_up("far").unwrap();
    let far = b.link("far").unwrap().unwrap();
    assert_eq!((far.mac, far.mtu, far.is_up, far.is_running), ([2, 0, 0, 0, 0, 1], 1400, true, false));
    b.set_down("far").unwrap();
    assert!(!b.link("far").unwrap().unwrap().is_up);
    a.delete_link("near").unwrap();
    b.wait_for_link("far", SOON, |link| link.is_none()).unwrap();
}

#[test]
fn a_link_without_ipv6_sends_nothing_by_itself() {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    veth((&a, "near"), (&b, "far"), Veth::default()).unwrap();
    a.disable_ipv6("near").unwrap();
    b.disable_ipv6("far").unwrap();
    a.set_up("near").unwrap();
    b.set_up("far").unwrap();
    b.wait_for_link("far", SOON, |link| link.is_some_and(|link| link.is_running)).unwrap();
    assert_eq!(b.run("ip", ["-6", "address", "show"]).unwrap().matches("inet6").count(), 1, "that of lo");
    assert_eq!(a.link("near").unwrap().unwrap().counters.tx_packets, 0);
}

#[test]
fn errors_carry_what_and_the_kernel_s_reason() {
    let a = Namespace::new().unwrap();
    assert_eq!(a.set_up("none").unwrap_err().to_string(), "no link \"none\" in this network namespace");
    let twice = veth((&a, "x"), (&a, "x"), Veth::default()).unwrap_err();
    assert_eq!(
        (twice.to_string().as_str(), twice.raw_os_error()),
        ("cannot make the veth pair x - x", Some(17))
    );
    let failed = a.run("sh", ["-c", "echo wrong >&2; exit 3"]).unwrap_err();
    assert_eq!(failed.to_string(), "sh -c echo wrong >&2; exit 3 ended with exit status: 3: wrong");
    let late = a.wait_for_link("none", Duration::from_millis(1), |link| link.is_some()).unwrap_err();
    assert_eq!(late.to_string(), "the change of link none did not happen in time");
}

#[test]
fn a_dropped_namespace_takes_its_links_along() {
    let (a, b) = joined();
    drop(b);
    a.wait_for_link("eth0", SOON, |link| link.is_none()).unwrap();
}

#[test]
fn raw_frames_pass_unchanged_with_their_tags_and_counters() {
    let (a, b) = joined();
    let (sender, witness) =
        (PacketSocket::open(&a, "eth0").unwrap(), PacketSocket::open(&b, "eth0").unwrap());
    let before = b.link("eth0").unwrap().unwrap().counters;
    // From an unknown station to another, tagged twice.
    let mut frame =
        vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xa8, 0, 20, 0x81, 0, 0xe0, 10, 0x88, 0xb5];
    frame.resize(64, 0x5a);
    sender.send(&frame).unwrap();
    // The namespaces' own chatter (neighbour discovery) may come in between.
    let seen = std::iter::from_fn(|| witness.receive(SOON).unwrap()).find(|seen| seen[..6] == frame[..6]);
    assert_eq!(seen, Some(frame));
    assert!(b.link("eth0").unwrap().unwrap().counters.rx_packets > before.rx_packets);
    assert!(
        sender.drain().unwrap().iter().all(|seen| seen[..6] != [2, 0, 0, 0, 0, 9]),
        "what was sent is not received"
    );
}

#[test]
fn a_dropped_process_is_gone() {
    let a = Namespace::new().unwrap();
    let mut command = a.command("sleep");
    command.arg("1000");
    let process = Process::spawn(command).unwrap();
    assert_eq!(a.processes().unwrap(), [process.id()]);
    drop(process);
    assert_eq!(a.processes().unwrap(), [0_u32; 0]);
}

#[test]
fn a_stopped_process_says_how_it_ended() {
    let mut command = Command::new("sh");
    // `read` ends at once when the trap has run: no sleep is left behind.
    command.args(["-c", "trap 'exit 7' TERM; echo ready; read never"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn(command).unwrap();
    BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(process.wait_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(process.stop(SOON).unwrap().code(), Some(7));
}

#[test]
fn all_processes_of_a_namespace_can_be_killed() {
    let a = Namespace::new().unwrap();
    a.run("sh", ["-c", "sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 &"]).unwrap();
    assert_eq!(a.processes().unwrap().len(), 2);
    a.kill_processes().unwrap();
    assert_eq!(a.processes().unwrap().len(), 0);
}

#[test]
fn a_scratch_folder_serves_other_processes_and_is_mounted_nowhere() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let scratch = Scratch::new().unwrap();
    let folder = scratch.path();
    let a = Namespace::new().unwrap();
    a.run("sh", ["-c", "mkdir $0/folder && echo written > $0/folder/file", folder.to_str().unwrap()])
        .unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("folder/file")).unwrap(), "written\n");
    assert_eq!(mounts(), before);
    drop(scratch);
    // Not the folder: another test may have a descriptor of that number by now.
    assert!(!folder.join("folder/file").exists());
}

/// A chroot is what many containers and builds are; its root is a folder, and no mount.
#[test]
fn commands_run_in_a_chroot() {
    const SCRIPT: &str = r#"
        set -e
        mount -t tmpfs tmpfs /mnt
        for folder in /bin /lib /lib64 /usr /proc /sys /dev "${0%/*}"; do
            if test -e "$folder"; then
                mkdir -p "/mnt/root$folder"
                mount --rbind "$folder" "/mnt/root$folder"
            fi
        done
        exec chroot /mnt/root env --chdir /usr "$0" "$@"
    "#;
    const INSIDE: &str = "VSWITCH_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let a = Namespace::new().unwrap();
        assert_eq!(a.run("ls", ["/sys/class/net"]).unwrap(), "lo\n");
        assert_eq!(a.run("pwd", [""; 0]).unwrap(), "/usr\n");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "commands_run_in_a_chroot", "--nocapture"]).env(INSIDE, "yes");
    Process::run(command).unwrap();
}

/// The test program runs itself again as the owner of a namespace, a veth into ours, a process and a folder, and
/// kills it the hard way.
#[test]
fn a_killed_owner_leaves_nothing() {
    const WITNESS: &str = "VSWITCH_TEST_WITNESS";
    if let Some(path) = std::env::var_os(WITNESS) {
        let (own, witness) = (Namespace::new().unwrap(), Namespace::open(path).unwrap());
        veth((&own, "eth0"), (&witness, "owned"), Veth::default()).unwrap();
        let mut command = own.command("sleep");
        command.arg("1000");
        let process = Process::spawn(command).unwrap();
        let scratch = Scratch::new().unwrap();
        println!("\nowned folder {}", scratch.path().display());
        println!("owned process {}", process.id());
        std::io::stdin().read_line(&mut String::new()).unwrap();
        unreachable!("the owner is killed while it waits");
    }
    let witness = Namespace::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_killed_owner_leaves_nothing", "--nocapture"]).env(WITNESS, witness.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = Process::spawn(command).unwrap();
    let mut lines = BufReader::new(owner.child().stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut owned = |what| lines.find_map(|line| Some(line.strip_prefix(what)?.to_owned()));
    let folder = owned("owned folder ").expect("the owner says what it owns");
    let id: u32 = owned("owned process ").expect("the owner says what it owns").parse().unwrap();
    assert!(std::fs::read_dir(&folder).is_ok());
    let exists = |link: Option<&Link>| link.is_some();
    witness.wait_for_link("owned", SOON, exists).unwrap();

    drop(owner); // SIGKILL

    witness.wait_for_link("owned", SOON, |link| !exists(link)).unwrap();
    // Until init has reaped it there may be a zombie, which is in no namespace any more.
    assert!(Namespace::open(format!("/proc/{id}/ns/net")).is_err(), "process {id} is left");
    assert!(std::fs::read_dir(folder).is_err());
}
