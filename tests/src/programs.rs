//! Where the programs under test are.

use std::env;
use std::path::PathBuf;

/// Names the folder that the programs are in (`cargo xtask test` sets it).
const BIN_DIR: &str = "VSWITCH_BIN_DIR";

/// The path of `vswitch` or `vswitchctl`.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = env::var_os(BIN_DIR).map_or_else(beside_the_test, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "there is no {name} in {}: build it first (cargo build --bins), or name its folder in {BIN_DIR}",
        folder.display()
    );
    path
}

/// Cargo puts tests into `deps` of the folder that programs are in.
fn beside_the_test() -> PathBuf {
    let test = env::current_exe().expect("the path of the test program");
    let folder = test.ancestors().nth(2).expect("the test program is in target/PROFILE/deps");
    folder.to_owned()
}
