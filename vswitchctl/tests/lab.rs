//! `vswitchctl lab` on the real kernel, without a daemon (needs root).

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use vswitch_netns::{Namespace, Process, Scratch, Veth, veth};

const SOON: Duration = Duration::from_secs(5);

/// A switch's namespace and a topology file with hosts for it.
struct Scene {
    namespace: Namespace,
    folder: Scratch,
}

/// Two hosts; `b` runs a command that starts another.
const TOPOLOGY: &str = r#"
[[network]]
name = "red"
[[port]]
name = "port-a"
netdev = "near-a"
mtu = 9000
access = "red"
[[port]]
name = "near-b"
access = "red"
security = { mac = ["02:00:00:00:00:0b", "02:00:00:00:00:0c"] }
[[host]]
name = "a"
port = "port-a"
address = ["10.0.0.1/24", "fd00::1/64"]
[[host]]
name = "b"
port = "near-b"
run = "sleep 1000 & sleep 1000; true"
"#;

impl Scene {
    fn new() -> Self {
        let scene = Self { namespace: Namespace::new().unwrap(), folder: Scratch::new().unwrap() };
        std::fs::write(scene.file(), TOPOLOGY).unwrap();
        scene
    }

    fn file(&self) -> String {
        self.folder.path().join("lab.toml").to_str().unwrap().to_owned()
    }

    /// Runs `vswitchctl` in the switch's namespace; no daemon is there.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_vswitchctl"));
        command.args(args).env("VSWITCH_SOCKET", self.folder.path().join("none")).output().unwrap()
    }

    /// Like [`Scene::run`]; exit code, stdout and stderr must be as given, the latter two in part.
    #[track_caller]
    fn expect(&self, args: &[&str], code: i32, stdout: &str, stderr: &str) {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{err}");
        assert!(out.contains(stdout) && err.contains(stderr), "{args:?}: {out}{err}");
    }

    /// The lab of this scene's file, as `lab list` has it.
    fn lab(&self) -> Option<Value> {
        let output = self.run(&["--json", "lab", "list"]);
        let labs: Value = serde_json::from_slice(&output.stdout).unwrap();
        labs.as_array().unwrap().iter().find(|lab| lab["file"] == self.file().as_str()).cloned()
    }

    /// Asks until the lab has gone: at most as often as makes a few seconds.
    fn lab_goes(&self) -> bool {
        (0..1000).any(|_| self.lab().is_none())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Fails where the test has ended the lab itself.
        let _ = self.run(&["lab", "down", &self.file()]);
    }
}

#[test]
fn hosts_come_go_and_are_as_the_file_says() {
    let scene = Scene::new();
    scene.expect(
        &["lab", "up", &scene.file()],
        0,
        "port-a  near-a  10.0.0.1/24 fd00::1/64",
        "daemon cannot be reached",
    );
    let near = scene.namespace.link("near-a").unwrap().unwrap();
    assert_eq!((near.mtu, near.is_running), (9000, true));
    scene.expect(&["lab", "exec", "a", "--", "cat", "/sys/class/net/eth0/mtu"], 0, "9000", "");
    scene.expect(
        &["lab", "exec", "b", "--", "cat", "/sys/class/net/eth0/address"],
        0,
        "02:00:00:00:00:0b",
        "",
    );
    scene.expect(&["lab", "exec", "a", "ip", "-br", "address"], 0, "10.0.0.1/24 fd00::1/64", "");
    scene.expect(&["lab", "exec", "a", "--", "sh", "-c", "exit 9"], 9, "", "");
    scene.expect(&["lab", "list"], 0, "near-b", "");

    let lab = scene.lab().unwrap();
    assert_eq!(lab["switch_netns"], scene.namespace.inode().unwrap());
    let b = Namespace::open(lab["hosts"][1]["netns"].as_str().unwrap()).unwrap();
    scene.expect(&["lab", "down", &scene.file()], 0, "", "");
    assert!(scene.namespace.link("near-a").unwrap().is_none(), "gone when `down` returns");
    assert_eq!(b.processes().unwrap(), [0_u32; 0], "and so is what its command has started");
    assert_eq!(scene.lab(), None);
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let scene = Scene::new();
    scene.expect(&["lab", "down", &scene.file()], 1, "", "there is no lab of");
    scene.expect(&["lab", "exec", "nobody", "--", "true"], 1, "", "there is no host \"nobody\"");
    scene.expect(&["lab", "up", "/no/such/file"], 2, "", "/no/such/file: No such file");
    scene.expect(&["lab", "exec", "a"], 2, "", "<COMMAND>");

    // The second host's netdev is in the way: the first host goes again.
    let other = Namespace::new().unwrap();
    veth((&scene.namespace, "near-b"), (&other, "x"), Veth::default()).unwrap();
    scene.expect(
        &["lab", "up", &scene.file()],
        1,
        "",
        "cannot make the veth pair near-b - eth0: File exists",
    );
    assert!(scene.namespace.link("near-a").unwrap().is_none());
    assert_eq!(scene.lab(), None);
    scene.namespace.delete_link("near-b").unwrap();

    scene.expect(&["lab", "up", &scene.file()], 0, "near-b", "");
    scene.expect(&["lab", "up", &scene.file()], 1, "", "is up");
    scene.expect(&["lab", "exec", "a", "--", "/no/program"], 1, "", "cannot run /no/program in host a");

    std::fs::write(scene.file(), "[[host]]\nname = 1\n").unwrap();
    scene.expect(&["lab", "up", &scene.file()], 2, "", "lab.toml:2:");
    std::fs::write(scene.file(), "").unwrap();
    scene.expect(&["lab", "up", &scene.file()], 2, "", "there is no [[host]]");
    scene.expect(&["lab", "down", &scene.file()], 0, "", "");
}

#[test]
fn a_host_is_looked_up_in_the_lab_of_the_caller_s_switch() {
    let (one, two) = (Scene::new(), Scene::new());
    one.expect(&["lab", "up", &one.file()], 0, "", "");
    two.expect(&["lab", "up", &two.file()], 0, "", "");
    let own = |scene: &Scene| {
        String::from_utf8(scene.run(&["lab", "exec", "a", "cat", "/sys/class/net/eth0/address"]).stdout)
    };
    let mac_of = |scene: &Scene| {
        let a = Namespace::open(scene.lab().unwrap()["hosts"][0]["netns"].as_str().unwrap()).unwrap();
        a.run("cat", ["/sys/class/net/eth0/address"]).unwrap()
    };
    assert_eq!(own(&one).unwrap(), mac_of(&one));
    assert_eq!(own(&two).unwrap(), mac_of(&two));
    Scene::new().expect(&["lab", "exec", "a", "--", "true"], 1, "", "there is more than one host \"a\"");
}

#[test]
fn a_lab_ends_with_its_switch_s_namespace() {
    let mut scene = Scene::new();
    scene.expect(&["lab", "up", &scene.file()], 0, "", "");
    let lab = scene.lab().unwrap();
    let b = Namespace::open(lab["hosts"][1]["netns"].as_str().unwrap()).unwrap();
    scene.namespace = Namespace::new().unwrap();
    b.wait_for_link("eth0", SOON, |link| link.is_none()).unwrap();
    assert!(scene.lab_goes());
    assert_eq!(b.processes().unwrap(), [0_u32; 0]);
}

#[test]
fn a_killed_lab_leaves_nothing() {
    let scene = Scene::new();
    scene.expect(&["lab", "up", &scene.file()], 0, "", "");
    let lab = scene.lab().unwrap();
    let b = Namespace::open(lab["hosts"][1]["netns"].as_str().unwrap()).unwrap();
    assert!(!b.processes().unwrap().is_empty());
    let mut kill = std::process::Command::new("sh");
    kill.arg("-c").arg(format!("kill -9 {}", lab["pid"]));
    Process::run(kill).unwrap();
    scene.namespace.wait_for_link("near-a", SOON, |link| link.is_none()).unwrap();
    assert!(scene.lab_goes());
    // The kernel ends a process namespace with its first process, in its own time.
    assert!((0..1000).any(|_| b.processes().unwrap().is_empty()));
}
