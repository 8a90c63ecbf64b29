//! Every kind of mistake in a topology file, one file each in `bad/` beside the message it must give.
//! `UPDATE_GOLDEN=1 cargo test` writes the messages anew; read the difference before it is committed.

use std::fs;
use std::path::Path;

use vswitch_api::topology::{load, read};

#[test]
fn each_mistake_names_its_place_and_its_mend() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let problems = load(&fs::read_to_string(&path).unwrap(), name).expect_err(name);
        let messages: String = problems.iter().map(|p| format!("{p}\n")).collect();
        if update {
            fs::write(path.with_extension("txt"), &messages).unwrap();
        }
        let expected =
            fs::read_to_string(path.with_extension("txt")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(messages, expected, "{name}");
        for problem in &problems {
            assert!(!problem.problem.mend.is_empty(), "no mend: {problem}");
        }
        seen += 1;
    }
    assert!(seen >= 40, "only {seen} files");
}

#[test]
fn a_file_is_read_with_its_name_in_every_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(read(&folder.join("../../topologies/demo.toml")).is_ok());
    let missing = read(Path::new("/no/such/file")).unwrap_err().to_string();
    assert_eq!(
        missing,
        "/no/such/file: No such file or directory (os error 2); name a topology file that can be read"
    );
    let file = folder.join("tests/bad/unknown-key.toml");
    let mistakes = read(&file).unwrap_err().to_string();
    assert_eq!(mistakes.lines().count(), 2, "{mistakes}");
    assert!(mistakes.lines().all(|line| line.starts_with(file.to_str().unwrap())), "{mistakes}");
}
