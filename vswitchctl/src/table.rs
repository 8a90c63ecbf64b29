//! Columns for people.

use std::fmt;

/// Rows under a header; columns of numbers are set flush right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

/// What stands where there is nothing to say.
pub(crate) const NOTHING: &str = "-";

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; an empty cell is shown as [`NOTHING`].
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|c| if c.is_empty() { NOTHING.to_owned() } else { c }).to_vec());
    }

    /// The width of each column in characters, and whether it is one of numbers.
    fn columns(&self) -> Vec<(usize, bool)> {
        let count = self.rows.first().map_or(0, Vec::len);
        let column = |c: usize| self.rows.iter().filter_map(move |row| row.get(c));
        (0..count)
            .map(|c| {
                let width = column(c).map(|cell| cell.chars().count()).max().unwrap_or(0);
                let is_number = |cell: &String| cell == NOTHING || cell.bytes().all(|b| b.is_ascii_digit());
                (width, self.rows.len() > 1 && column(c).skip(1).all(is_number))
            })
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, (width, is_number)) in row.iter().zip(&columns) {
                let cell = if *is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `name: value` lines with the values in one column.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let known = facts.iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| format!("{:width$}{value}\n", format!("{name}:"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(["PORT", "MACS", "WHY"]);
        table.row(["é".to_owned(), "5".to_owned(), String::new()]);
        table.row(["longer".to_owned(), "1234567".to_owned(), "x".to_owned()]);
        assert_eq!(
            table.to_string(),
            "PORT       MACS  WHY\n\
             é             5  -\n\
             longer  1234567  x\n"
        );
        assert_eq!(Table::new(["A", "B"]).to_string(), "A  B\n");
    }

    #[test]
    fn facts_without_a_value_are_left_out() {
        assert_eq!(
            facts(&[("name", "a".to_owned()), ("x", String::new()), ("kind", "b".to_owned())]),
            "name: a\nkind: b\n"
        );
    }
}
