//! `cargo xtask fuzz`: builds the fuzz targets and lets each look for inputs that break it.

use std::time::Duration;

use crate::packages::{self, Package};
use crate::{Result, shell};

/// libFuzzer is built from its sources.
const GXX: Package = Package { name: "g++", program: "c++", purpose: "build libFuzzer" };

/// Runs one target, or all, each for so long. It begins with the inputs of `fuzz/corpus`; what it finds worth keeping
/// stays in `fuzz/found`, for the next time.
pub(crate) async fn run(target: Option<&str>, time: Duration) -> Result<()> {
    let targets = targets()?;
    let known = targets.join(", ");
    let wanted: Vec<String> =
        targets.into_iter().filter(|name| target.is_none_or(|wanted| wanted == name)).collect();
    if wanted.is_empty() {
        return Err(format!("there is no fuzz target {:?}; there are {known}", target.unwrap_or("")).into());
    }
    packages::install_missing(&[GXX]).await?;
    shell::title("Building the fuzz targets");
    let mut build = cargo();
    build.args(["build", "--locked", "--release"]);
    shell::run(build).await?;
    for name in wanted {
        shell::title(&format!("Fuzzing {name}"));
        let mut fuzz = cargo();
        fuzz.args(["run", "--locked", "--release", "--quiet", "--bin", &name, "--"]);
        // The first is where new inputs go.
        for inputs in [format!("found/{name}"), format!("corpus/{name}")] {
            std::fs::create_dir_all(shell::root().join("fuzz").join(&inputs))?;
            fuzz.arg(inputs);
        }
        // The time is looked at between inputs; one that takes seconds is a failure too.
        fuzz.arg(format!("-max_total_time={}", time.as_secs().max(1))).args(["-timeout=10", "-verbosity=0"]);
        fuzz.arg("-print_final_stats=1");
        shell::run(fuzz).await?;
    }
    Ok(())
}

/// Each file of `fuzz/targets` is one.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(shell::root().join("fuzz/targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// In the folder whose `.cargo/config.toml` turns the instrumentation on.
fn cargo() -> std::process::Command {
    let mut cargo = shell::cargo();
    cargo.current_dir(shell::root().join("fuzz"));
    cargo
}
