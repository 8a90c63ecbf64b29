//! The forwarding database on the real data path: learning, ageing, moves, static entries, limits.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use vswitch_tests::{Frame, scenario};
use vswitch_wire::Mac;

/// Three hosts on one network, which send nothing unless told to.
const THREE: &str = r#"
network = [{ name = "lan" }]
port = [
    { name = "a", access = "lan" },
    { name = "b", access = "lan" },
    { name = "c", access = "lan" },
]
host = [{ name = "a", port = "a" }, { name = "b", port = "b" }, { name = "c", port = "c" }]
"#;

#[test]
fn a_second_frame_to_a_station_is_not_flooded() {
    scenario(THREE, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let [mac_a, mac_b] = ["a", "b"].map(|name| lab.host(name).mac);
        let first = Frame::new(mac_b, mac_a, "the destination is unknown");
        a.send(&first);
        assert_eq!(b.until(&first), []);
        assert_eq!(c.until(&first), [], "an unknown destination is flooded");

        let answer = Frame::new(mac_a, mac_b, "the source of the first frame is known");
        b.send(&answer);
        assert_eq!(a.until(&answer), []);
        let second = Frame::new(mac_b, mac_a, "the source of the answer is known");
        a.send(&second);
        assert_eq!(b.until(&second), []);

        let last = Frame::new(Mac::BROADCAST, mac_a, "everybody sees this");
        a.send(&last);
        assert_eq!(c.until(&last), [], "neither the answer nor the second frame was flooded");
        assert_eq!(lab.switch.place_of("lan", mac_a).as_deref(), Some("a"));
        assert_eq!(lab.switch.place_of("lan", mac_b).as_deref(), Some("b"));
    });
}
