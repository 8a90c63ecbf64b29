//! Ports of kind vhost-user. The guests are in the test's own process: memory, rings and front end without a kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // set-up of tests

mod guest;
mod restart;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use vswitch_api::response::{LinkState, PortState};
use vswitch_io::vhost_user::guest::frontend::{Order, send};
use vswitch_tests::{Frame, Lab, SOON, scenario, wait_until};
use vswitch_wire::Mac;

use guest::{PACKED, Vm, connect};

/// A host with a veth in each of two networks.
const HOSTS: &str = r#"
network = [{ name = "red" }, { name = "blue" }]
port = [
    { name = "red1", kind = "packet", access = "red" },
    { name = "blue1", kind = "packet", access = "blue" },
]
host = [{ name = "red1", port = "red1" }, { name = "blue1", port = "blue1" }]
"#;

/// The name of a guest's port, its network, and who listens.
type Port<'a> = (&'a str, &'a str, &'a str);

/// Where a port's socket is.
fn socket(lab: &Lab, port: &str) -> PathBuf {
    lab.switch.file(&format!("{port}.sock"))
}

/// The hosts' topology with these ports for guests, now and when the daemon starts again.
fn add_ports(lab: &Lab, ports: &[Port<'_>]) {
    let mut topology = HOSTS.replace("host = [", "# host = [");
    for (name, network, role) in ports {
        let socket = socket(lab, name);
        let port = format!(
            r#"{{ name = "{name}", kind = "vhost-user", socket = "{}", role = "{role}", access = "{network}" }},"#,
            socket.display()
        );
        topology = topology.replace("port = [", &format!("port = [\n{port}"));
    }
    lab.switch.write_config(&topology);
    lab.switch.apply(&topology);
}

#[track_caller]
fn wait_down(lab: &Lab, port: &str) -> PortState {
    wait_until("the link is down", SOON, || lab.switch.port(port).state == LinkState::Down);
    lab.switch.port(port)
}

/// Frames from one guest to another and back; their addresses are known afterwards.
#[track_caller]
fn exchange(a: &mut Vm, b: &mut Vm, text: &str) {
    let to_all = Frame::new(Mac::BROADCAST, a.mac, text);
    a.send(&to_all);
    b.until(&to_all);
    let back = Frame::new(a.mac, b.mac, text);
    b.send(&back);
    a.until(&back);
}

#[test]
fn guests_and_hosts_of_one_network_exchange_frames_and_others_see_nothing() {
    scenario(HOSTS, |lab| {
        let listener = UnixListener::bind(socket(lab, "vm2")).unwrap();
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "client"), ("vm3", "blue", "server")]);
        let mut vm1 = Vm::connect(&socket(lab, "vm1"), 1, 0);
        let mut vm2 = Vm::accept(&listener, 2, PACKED);
        let mut vm3 = Vm::connect(&socket(lab, "vm3"), 3, 0);
        lab.wait_up(["vm1", "vm2", "vm3"]);
        let [red, blue] = lab.raw(["red1", "blue1"]);
        let [red_mac, blue_mac] = [lab.host("red1").mac, lab.host("blue1").mac];

        let to_all = Frame::new(Mac::BROADCAST, vm1.mac, "to all of red");
        vm1.send(&to_all);
        vm2.sees([to_all.clone()]);
        red.sees([to_all]);
        let from_host = Frame::new(Mac::BROADCAST, red_mac, "from a host");
        red.send(&from_host);
        vm1.sees([from_host.clone()]);
        vm2.sees([from_host]);
        // All addresses but vm2's are known: what goes to one of them goes nowhere else.
        let to_vm1 = Frame::new(vm1.mac, vm2.mac, "to vm1");
        vm2.send(&to_vm1);
        vm1.sees([to_vm1]);
        let to_host = Frame::new(red_mac, vm2.mac, "to the host");
        vm2.send(&to_host);
        red.sees([to_host]);
        let to_vm2 = Frame::new(vm2.mac, red_mac, "to vm2");
        red.send(&to_vm2);
        vm2.sees([to_vm2]);
        for (mac, port) in [(vm1.mac, "vm1"), (vm2.mac, "vm2"), (red_mac, "red1")] {
            assert_eq!(lab.switch.place_of("red", mac).as_deref(), Some(port));
        }

        // The first that anyone in blue hears.
        let in_blue = Frame::new(Mac::BROADCAST, blue_mac, "to all of blue");
        blue.send(&in_blue);
        vm3.sees([in_blue]);
    });
}

#[test]
fn a_port_tells_of_its_front_end() {
    scenario(HOSTS, |lab| {
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "client")]);
        for port in ["vm1", "vm2"] {
            let waits = wait_down(lab, port);
            assert_eq!(
                waits.reason.unwrap(),
                format!("waits for a front end on {}", socket(lab, port).display())
            );
            assert!(waits.front_end.is_some_and(|f| !f.connected && f.features.is_empty()));
        }
        let health = lab.switch.status().health;
        assert!(health.iter().any(|h| h.part == "port vm1" && h.text.contains("waits for a front end")));
        assert_eq!(lab.switch.status().ports.down, 2);

        let idle = connect(&socket(lab, "vm1"));
        wait_until("the front end is known", SOON, || {
            lab.switch.port("vm1").front_end.is_some_and(|f| f.connected)
        });
        assert!(lab.switch.port("vm1").reason.unwrap().contains("has started no rings"));
        drop(idle);

        let mut vm = Vm::connect(&socket(lab, "vm1"), 1, 1); // CSUM
        lab.wait_up(["vm1"]);
        let port = lab.switch.port("vm1");
        let front_end = port.front_end.unwrap();
        assert_eq!(port.offloads.rx, ["csum"]);
        assert_eq!(port.offloads.tx, [""; 0]);
        assert_eq!((port.kind.name(), port.netdev, port.queues), ("vhost-user", None, 1));
        assert_eq!((front_end.connected, front_end.queue_pairs, front_end.sessions), (true, 1, 2));
        assert_eq!(front_end.features, ["VERSION_1", "CSUM"]);
        assert_eq!(front_end.slow.len(), 3, "{:?}", front_end.slow);

        let hello = Frame::new(Mac::BROADCAST, vm.mac, "hello");
        vm.send(&hello);
        wait_until("the guest is known", SOON, || lab.switch.place_of("red", vm.mac).is_some());

        lab.expect_warning("a ring rests until the guest resets it");
        // The index jumps.
        vm.guest.memory.write(vm.guest.tx.physical()[1] + 2, &9999_u16.to_le_bytes());
        let rests = wait_down(lab, "vm1");
        assert_eq!(
            rests.reason.unwrap(),
            "a ring rests until the guest resets it: the index of available buffers jumped"
        );
        assert_eq!(lab.switch.place_of("red", vm.mac), None, "what was learnt is forgotten");
        drop(vm);
        wait_until("the front end is gone", SOON, || {
            lab.switch.port("vm1").front_end.is_some_and(|f| !f.connected)
        });

        lab.expect_warning("broke the protocol");
        let stream = connect(&socket(lab, "vm1"));
        send(&stream, &Order::new(11, &[99]), false).unwrap();
        wait_until("it is sent away", SOON, || {
            lab.switch.port("vm1").front_end.is_some_and(|f| f.refused == 1)
        });
        let reason = lab.switch.port("vm1").reason.unwrap();
        assert!(reason.ends_with("one was sent away: there is no ring 99"), "{reason}");
    });
}

/// How many descriptors the daemon has of the kinds that a front end brings with it.
fn descriptors_of_guests(lab: &Lab) -> usize {
    let kinds = ["socket:", "anon_inode:[event", "/memfd:"];
    let all = lab.switch.descriptors();
    all.iter().filter(|target| kinds.iter().any(|kind| target.starts_with(kind))).count()
}

#[test]
fn front_ends_come_and_go_without_a_trace() {
    /// Frames that a worker may keep at hand.
    const AT_HAND: usize = 256;
    /// More, so that one lost in each is seen.
    const ROUNDS: usize = 300;
    const BURST: usize = 32;
    scenario(HOSTS, |lab| {
        add_ports(lab, &[("vm1", "red", "server")]);
        let [red] = lab.raw(["red1"]);
        let red_mac = lab.host("red1").mac;
        let free = |lab: &Lab| -> usize {
            let health = lab.switch.status().health;
            let frames = health.iter().find(|h| h.part == "frames").unwrap();
            frames.text.split(' ').next().unwrap().parse().unwrap()
        };
        let mappings = |lab: &Lab| {
            let maps = fs::read_to_string(format!("/proc/{}/maps", lab.switch.pid())).unwrap();
            maps.matches("/memfd:guest").count()
        };
        let mut steady = None;
        for round in 0..ROUNDS {
            let mut vm = Vm::connect(&socket(lab, "vm1"), 1, if round % 2 == 0 { 0 } else { PACKED });
            lab.wait_up(["vm1"]);
            let hello = Frame::new(red_mac, vm.mac, &format!("round {round}"));
            vm.send(&hello);
            red.until(&hello);
            let answer = Frame::new(vm.mac, red_mac, &format!("round {round}"));
            red.send(&answer);
            vm.until(&answer);
            for _ in 0..BURST {
                red.send(&answer);
                vm.send(&hello);
            }
            assert_eq!(mappings(lab), 1);
            drop(vm); // in the midst of it, as by SIGKILL
            wait_down(lab, "vm1");
            assert_eq!(mappings(lab), 0);
            if round == 1 {
                lab.switch.wait_quiet();
                steady = Some((descriptors_of_guests(lab), free(lab)));
            }
        }
        lab.switch.wait_quiet();
        let (descriptors, before) = steady.unwrap();
        wait_until("no descriptor is left", SOON, || descriptors_of_guests(lab) <= descriptors);
        assert!(free(lab) + AT_HAND >= before, "{before} frames were free, and {} are", free(lab));
        let front_end = lab.switch.port("vm1").front_end.unwrap();
        assert_eq!((front_end.sessions, front_end.refused), (ROUNDS as u64, 0));
    });
}

#[test]
fn a_front_end_that_listens_is_found_again() {
    scenario(HOSTS, |lab| {
        let path = socket(lab, "vm2");
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "client")]);
        let mut vm1 = Vm::connect(&socket(lab, "vm1"), 1, 0);
        lab.wait_up(["vm1"]);
        for round in 0..3 {
            let listener = UnixListener::bind(&path).unwrap();
            let mut vm2 = Vm::accept(&listener, 2, 0);
            lab.wait_up(["vm2"]);
            exchange(&mut vm2, &mut vm1, &format!("round {round}"));
            drop((vm2, listener));
            fs::remove_file(&path).unwrap();
            wait_down(lab, "vm2");
        }
    });
}

/// `port add` of a guest's port whose socket is this file of the scenario's folder.
fn add(lab: &Lab, port: &str, file: &str) -> Vec<String> {
    let socket = lab.switch.file(file).display().to_string();
    ["port", "add", port, "--kind", "vhost-user", "--socket", &socket].map(str::to_owned).to_vec()
}

#[track_caller]
fn refusal(lab: &Lab, command: &[String]) -> String {
    lab.switch.refusal(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
fn change(lab: &Lab, command: &[String]) {
    lab.switch.change(&command.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn sockets_of_others_are_left_alone() {
    scenario(HOSTS, |lab| {
        let path = |name: &str| lab.switch.file(name);
        fs::write(path("file"), "precious").unwrap();
        assert!(refusal(lab, &add(lab, "vm1", "file")).contains("exists and is no socket"));
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious");
        let theirs = UnixListener::bind(path("theirs")).unwrap();
        assert!(refusal(lab, &add(lab, "vm1", "theirs")).contains("another program listens"));
        assert!(UnixStream::connect(path("theirs")).is_ok());
        assert!(refusal(lab, &add(lab, "vm1", "socket")).contains("another program listens"), "the daemon's");
        assert!(refusal(lab, &add(lab, "vm1", "no/folder")).contains("does not exist"));
        assert_eq!(lab.switch.ports().len(), 2, "what is refused has changed nothing");
        drop(theirs);
        change(lab, &add(lab, "vm1", "theirs"));
        connect(&path("theirs")); // which nobody had any more
    });
}

#[test]
fn sockets_move_with_their_ports_and_go_with_them() {
    scenario(HOSTS, |lab| {
        let [first, moved] = ["first", "moved"].map(|name| lab.switch.file(name));
        change(lab, &add(lab, "vm1", "first"));
        connect(&first);
        lab.switch.change(&["port", "set", "vm1", "--socket", moved.to_str().unwrap()]);
        assert!(!first.exists());
        connect(&moved);
        let dump = lab.switch.ctl(["dump"]).stdout;
        assert_eq!(lab.switch.apply(&dump), [""; 0]);
        // To another port, in one transaction.
        assert_eq!(lab.switch.apply(&dump.replace("\"vm1\"", "\"vm2\"")).len(), 2);
        connect(&moved);
        lab.switch.change(&["port", "set", "vm2", "--role", "client"]);
        assert!(!moved.exists(), "the front end listens there");
        lab.switch.change(&["port", "set", "vm2", "--role", "server"]);
        connect(&moved);
        lab.switch.change(&["port", "set", "vm2", "--kind", "tap"]);
        assert!(!moved.exists());
        lab.wait_up(["vm2"]);
        change(lab, &add(lab, "vm3", "last"));
        let last = lab.switch.file("last");
        connect(&last);
        lab.switch.change(&["port", "del", "vm3"]);
        assert!(!last.exists());
        change(lab, &add(lab, "vm3", "last"));
        connect(&last);
        lab.switch.stop(Signal::SIGTERM);
        assert!(!last.exists(), "a daemon that ends takes its sockets away");
    });
}

#[test]
fn a_port_of_the_file_waits_for_its_socket_to_be_free() {
    scenario(HOSTS, |lab| {
        let path = socket(lab, "vm1");
        fs::write(&path, "precious").unwrap();
        lab.switch.stop(Signal::SIGTERM);
        lab.expect_warning("the netdev or socket is refused");
        let port = format!(
            r#"[[port]]
            name = "vm1"
            kind = "vhost-user"
            socket = "{}"
            access = "red""#,
            path.display()
        );
        lab.switch.write_config(&format!("{}\n[[network]]\nname = \"red\"", port));
        lab.switch.start();
        let waits = lab.switch.port("vm1");
        assert_eq!(waits.state, LinkState::Waiting);
        assert!(waits.reason.unwrap().contains("exists and is no socket"));
        fs::remove_file(&path).unwrap();
        let mut vm = Vm::connect(&path, 1, 0);
        lab.wait_up(["vm1"]);
        let hello = Frame::new(Mac::BROADCAST, vm.mac, "hello");
        vm.send(&hello);
        wait_until("the guest is known", SOON, || lab.switch.place_of("red", vm.mac).is_some());
    });
}

#[test]
fn a_front_end_that_changes_as_fast_as_it_can_harms_nobody_else() {
    scenario(HOSTS, |lab| {
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "server"), ("vm3", "red", "server")]);
        let mut vm2 = Vm::connect(&socket(lab, "vm2"), 2, 0);
        let mut vm3 = Vm::connect(&socket(lab, "vm3"), 3, 0);
        let vm1 = Vm::connect(&socket(lab, "vm1"), 1, 0);
        lab.wait_up(["vm1", "vm2", "vm3"]);
        let before = lab.switch.log().len();
        for _ in 0..2000 {
            vm1.order(&[Order::new(18, &[0, 0]), Order::new(18, &[0, 1])]);
        }
        exchange(&mut vm2, &mut vm3, "through");
        let lines = lab.switch.log()[before..].lines().count();
        // A port has ten in 10 s; what is logged of requests is not meant.
        assert!(lines < 60, "{lines} lines in the log for 4000 changes");
        lab.wait_up(["vm1", "vm2", "vm3"]);
    });
}
