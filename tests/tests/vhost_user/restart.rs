//! The switch ends, in whatever way, and starts again: guests go on, and nobody touches them.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::signal::Signal;
use vswitch_tests::{Frame, Lab, scenario};
use vswitch_wire::Mac;

use crate::guest::{PACKED, Vm, connect};
use crate::{HOSTS, add_ports, exchange, socket};

#[test]
fn guests_outlive_the_switch() {
    outlive_the_switch(0);
}

#[test]
fn guests_with_packed_rings_outlive_the_switch() {
    outlive_the_switch(PACKED);
}

fn outlive_the_switch(bits: u64) {
    scenario(HOSTS, |lab| {
        let listener = UnixListener::bind(socket(lab, "vm2")).unwrap();
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "client")]);
        let mut vm1 = Vm::connect(&socket(lab, "vm1"), 1, bits);
        let mut vm2 = Vm::accept(&listener, 2, bits);
        lab.wait_up(["vm1", "vm2"]);
        for round in 0..4 {
            // More than the rings hold, in some rounds.
            (0..=round * 100).for_each(|i| exchange(&mut vm1, &mut vm2, &format!("before {round}, {i}")));
            let signal = if round == 3 { Signal::SIGTERM } else { Signal::SIGKILL };
            lab.switch.stop(signal);
            vm1.wait_for_end();
            vm2.wait_for_end();
            // Nobody is there to take it yet.
            let waiting = Frame::new(Mac::BROADCAST, vm1.mac, &format!("meanwhile {round}"));
            vm1.send(&waiting);
            assert_eq!(socket(lab, "vm1").exists(), signal == Signal::SIGKILL, "that cannot remove it");
            lab.switch.start();
            vm2.connect_again(listener.accept().unwrap().0);
            lab.wait_up(["vm2"]);
            vm1.connect_again(connect(&socket(lab, "vm1")));
            vm2.until(&waiting);
            lab.wait_up(["vm1"]);
            exchange(&mut vm1, &mut vm2, &format!("after {round}"));
        }
    });
}

/// The files that say where packed rings are.
fn records(lab: &Lab) -> usize {
    let folder = lab.switch.file("socket.rings");
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn records_stay_until_a_daemon_without_their_ports_ends_in_order() {
    scenario(HOSTS, |lab| {
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "server"), ("vm3", "red", "server")]);
        let boot = |lab: &Lab, port: &str, number| {
            let vm = Vm::connect(&socket(lab, port), number, PACKED);
            lab.wait_up([port]);
            vm
        };
        let mut vm1 = boot(lab, "vm1", 1);
        let mut vm2 = boot(lab, "vm2", 2);
        let _vm3 = boot(lab, "vm3", 3);
        exchange(&mut vm1, &mut vm2, "first");
        assert_eq!(records(lab), 3);
        // A port takes another name, and has the same guest.
        let dump = lab.switch.ctl(["dump"]).stdout;
        lab.switch.apply(&dump.replace("\"vm2\"", "\"other\""));
        vm2.wait_for_end();
        vm2.connect_again(UnixStream::connect(socket(lab, "vm2")).unwrap());
        lab.wait_up(["other"]);
        exchange(&mut vm1, &mut vm2, "by another name");
        // It goes, and comes back.
        lab.switch.change(&["port", "del", "other"]);
        vm2.wait_for_end();
        lab.switch.apply(&dump);
        vm2.connect_again(connect(&socket(lab, "vm2")));
        lab.wait_up(["vm2"]);
        exchange(&mut vm1, &mut vm2, "once more");
        // Other queues are another device; the guest goes on with the one pair that it has.
        lab.switch.change(&["port", "set", "vm2", "--queues", "2"]);
        vm2.wait_for_end();
        vm2.connect_again(connect(&socket(lab, "vm2")));
        lab.wait_up(["vm2"]);
        exchange(&mut vm1, &mut vm2, "of two pairs");
        lab.switch.stop(Signal::SIGKILL);
        assert_eq!(records(lab), 3);
        // Nor does a start without these ports mean that there will be none.
        lab.switch.write_config(HOSTS.split("host =").next().unwrap());
        lab.switch.start();
        assert_eq!(records(lab), 3);
        lab.switch.stop(Signal::SIGTERM);
        assert!(!lab.switch.file("socket.rings").exists(), "no port has those sockets");
    });
}

#[test]
fn a_guest_that_was_started_anew_meanwhile_is_served_from_its_beginning() {
    scenario(HOSTS, |lab| {
        add_ports(lab, &[("vm1", "red", "server"), ("vm2", "red", "server")]);
        let mut vm1 = Vm::connect(&socket(lab, "vm1"), 1, PACKED);
        let mut vm2 = Vm::connect(&socket(lab, "vm2"), 2, PACKED);
        lab.wait_up(["vm1", "vm2"]);
        exchange(&mut vm1, &mut vm2, "before");
        lab.switch.stop(Signal::SIGKILL);
        vm1.reboot();
        lab.switch.start();
        for (vm, port) in [(&mut vm1, "vm1"), (&mut vm2, "vm2")] {
            vm.connect_again(connect(&socket(lab, port)));
        }
        lab.wait_up(["vm1", "vm2"]);
        exchange(&mut vm1, &mut vm2, "after");
    });
}
