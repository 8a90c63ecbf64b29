//! Topology files: text to value with the place of every mistake, and back.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::keys::{self, Table, kebab};
use super::{Acl, PROBLEMS_MAX, Topology};
use crate::response::Problem;

/// A mistake and its place, shown as `lab.toml:12:3: port[2].access: what; mend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file's name, as it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The mistake.
    pub problem: Problem,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.problem)
    }
}

/// Why a file gives no topology. Shown as one line for each mistake.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{}: {source}; name a topology file that can be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What reading it gave.
        source: io::Error,
    },
    /// It has mistakes; there is one at least.
    #[error("{}", lines(.0))]
    Mistakes(Vec<FileProblem>),
}

fn lines(problems: &[FileProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads and checks the topology in `file`.
///
/// # Errors
/// See [`ReadError`].
pub fn read(file: &Path) -> Result<Topology, ReadError> {
    let unreadable = |source| ReadError::Unreadable { file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    load(&text, &file.display().to_string()).map_err(ReadError::Mistakes)
}

/// Reads and checks the text of a topology file. `file` is its name in messages.
///
/// # Errors
/// The mistakes that were found, in the order of the file: at most [`PROBLEMS_MAX`], and one more that counts the
/// others. Mistakes of syntax hide all others, a value of a wrong type hides those of meaning.
pub fn load(text: &str, file: &str) -> Result<Topology, Vec<FileProblem>> {
    let source = Source { text, file };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let listed = errors.iter().take(PROBLEMS_MAX).map(|e| source.syntax_error(e)).collect();
        return Err(with_count(listed, errors.len().saturating_sub(PROBLEMS_MAX)));
    }

    let mut bad_keys = Vec::new();
    let span = document.span();
    let table = keys::to_snake(document.get_ref().clone(), Table::Top, "", &mut bad_keys);
    let mut problems: Vec<_> = bad_keys
        .into_iter()
        .map(|bad| (bad.offset, Problem { path: bad.path, what: bad.what, mend: bad.mend }))
        .collect();

    let deserializer = toml::Deserializer::from(Spanned::new(span, table));
    let mut more = 0;
    match Topology::deserialize(deserializer) {
        Ok(topology) => {
            let of_meaning = check::find(&topology);
            let located = |p: Problem| (offset_of(document.get_ref(), &p.path).unwrap_or(0), p);
            problems.extend(of_meaning.listed.into_iter().map(located));
            more = of_meaning.more;
            if problems.is_empty() {
                return Ok(topology);
            }
        }
        Err(error) => problems.push(type_error(&document, &error)),
    }
    problems.sort_by_key(|(offset, _)| *offset);
    more += problems.len().saturating_sub(PROBLEMS_MAX);
    problems.truncate(PROBLEMS_MAX);
    Err(with_count(problems.into_iter().map(|(offset, p)| source.at(offset, p)).collect(), more))
}

/// The mistakes, and at the place of the last of them how many there are more.
fn with_count(mut listed: Vec<FileProblem>, more: usize) -> Vec<FileProblem> {
    let place = listed.last().cloned();
    listed
        .extend(place.zip(Problem::that_counts(more)).map(|(last, problem)| FileProblem { problem, ..last }));
    listed
}

/// The most characters of a line that a message shows.
const LINE_SHOWN: usize = 60;

struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

impl Source<'_> {
    fn at(&self, offset: usize, problem: Problem) -> FileProblem {
        let start = self.line_start(offset);
        FileProblem {
            file: self.file.to_owned(),
            line: self.text.get(..start).map_or(0, |before| before.matches('\n').count()) + 1,
            column: self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1,
            problem,
        }
    }

    /// Where the line of `offset` begins.
    fn line_start(&self, offset: usize) -> usize {
        self.text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
    }

    /// The line in question is part of the message, since there is no path to name the key.
    fn syntax_error(&self, error: &toml::de::Error) -> FileProblem {
        let offset = error.span().map_or(0, |s| s.start);
        let line =
            self.text.get(self.line_start(offset)..).and_then(|l| l.lines().next()).unwrap_or_default();
        let line: String = line.chars().take(LINE_SHOWN).collect();
        let (what, mend) = match split_expectation(error.message()) {
            (what, _) if what == "duplicate key" => (what, "keep one of them".to_owned()),
            (what, mend) if mend.is_empty() => (what, "see https://toml.io for the notation".to_owned()),
            (what, mend) => (what, mend),
        };
        self.at(offset, Problem { path: String::new(), what: format!("{what} in {line:?}"), mend })
    }
}

/// A value of a wrong type, or a key that is missing.
fn type_error(document: &Spanned<DeTable<'_>>, error: &toml::de::Error) -> (usize, Problem) {
    let span = error.span().unwrap_or(document.span());
    let path = path_of(document.get_ref(), &span).unwrap_or_default();
    let offset = offset_of(document.get_ref(), &path).unwrap_or(span.start);
    let message = error.message();
    let (what, mend) = match message.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
        Some(key) => (format!("{} is missing", kebab(key)), format!("add {} = ...", kebab(key))),
        None => split_expectation(message),
    };
    (offset, Problem { path, what, mend })
}

/// Parts `what, expected mend`, `what; mend` and `what: mend`: the forms of serde and toml, of this crate, of `wire`.
fn split_expectation(message: &str) -> (String, String) {
    let message = message.lines().next().unwrap_or_default();
    let (what, mend) = if let Some((what, expected)) = message.rsplit_once(", expected ") {
        (what, format!("write {}", in_words(expected)))
    } else if let Some((what, mend)) = message.split_once("; ").or_else(|| message.split_once(": ")) {
        (what, mend.to_owned())
    } else {
        (message, String::new())
    };
    (what.to_owned(), mend)
}

/// What serde calls by the names of Rust's types.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u32" => "a whole number from 0 to 4294967295",
        "i64" => "a whole number",
        "literal string" => "it in quotes",
        "a sequence" => "a list, as in [\"red\", \"blue\"]",
        "struct AclUse" => "a table, as in { ingress = \"web\" }",
        "struct Security" => "a table, as in { mac = [\"02:00:00:00:00:11\"], guard = true }",
        "struct Storm" => "a table, as in { broadcast = \"1000pps\" }",
        _ if expected.starts_with("struct ") => "a table of keys and values",
        other => other,
    }
}

/// The path of the key or list entry whose key or value is at `span`.
fn path_of(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        if key.span() == *span {
            return Some(name.to_string());
        }
        path_in_value(value, span).map(|below| format!("{name}{below}"))
    })
}

/// The rest of the path below a value: empty when the value itself is meant.
fn path_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    // What is below goes first: a list of tables has the span of its first entry.
    let below = match value.get_ref() {
        DeValue::Table(table) => path_of(table, span).map(|below| format!(".{below}")),
        DeValue::Array(entries) => entries
            .iter()
            .enumerate()
            .find_map(|(i, entry)| path_in_value(entry, span).map(|below| format!("[{i}]{below}"))),
        _ => None,
    };
    below.or_else(|| (value.span() == *span).then(String::new))
}

/// Where the key (or, for a list, the entry) at `path` begins; the nearest above it where the file has no such key.
fn offset_of(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let mut steps = path.split(['.', '[']);
    let (key, value) = table.get_key_value(steps.next()?)?;
    let (mut offset, mut value) = (key.span().start, value);
    for step in steps {
        match (step.strip_suffix(']'), value.get_ref()) {
            (Some(index), DeValue::Array(entries)) => {
                let Some(entry) = index.parse::<usize>().ok().and_then(|i| entries.get(i)) else { break };
                (offset, value) = (entry.span().start, entry);
            }
            (None, DeValue::Table(table)) => {
                let Some((key, below)) = table.get_key_value(step) else { break };
                (offset, value) = (key.span().start, below);
            }
            _ => break,
        }
    }
    Some(offset)
}

/// Writes a topology as a file: `load` of it gives the same topology. What is at its default is left out.
#[must_use]
pub fn to_toml(topology: &Topology) -> String {
    let mut out = String::from("[switch]\n");
    write_fields(&mut out, &topology.switch);
    write_list(&mut out, "tenant", &topology.tenant);
    write_list(&mut out, "network", &topology.network);
    write_list(&mut out, "port", &topology.port);
    if let Some(underlay) = &topology.underlay {
        out.push_str("\n[underlay]\n");
        write_fields(&mut out, underlay);
    }
    for acl in &topology.acl {
        // Its rules are tables of their own, each with keys in kebab-case.
        write_list(&mut out, "acl", &[Acl { rule: Vec::new(), ..acl.clone() }]);
        write_list(&mut out, "acl.rule", &acl.rule);
    }
    write_list(&mut out, "fdb", &topology.fdb);
    write_list(&mut out, "host", &topology.host);
    out
}

fn write_list(out: &mut String, key: &str, items: &[impl Serialize]) {
    for item in items {
        out.push_str(&format!("\n[[{key}]]\n"));
        write_fields(out, item);
    }
}

fn write_fields(out: &mut String, item: &impl Serialize) {
    for (key, value) in fields(item) {
        out.push_str(&format!("{key} = {value}\n"));
    }
}

/// The keys and values of an item that are not at their default, as a file writes them, in the order of the type.
pub(super) fn fields(item: &impl Serialize) -> Vec<(String, toml::Value)> {
    // Every item is a struct of strings, numbers, booleans and lists and tables of them, which TOML can write.
    let table = toml::Table::try_from(item).unwrap_or_default();
    table.into_iter().map(|(key, value)| (kebab(&key), value)).collect()
}
