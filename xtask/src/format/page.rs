//! The tables of a format page, held against the constants of the layout that each describes.

/// One row: name, offset, size.
pub type Row = (&'static str, usize, usize);

/// A layout: the heading above its table, and its rows.
pub type Layout = (&'static str, &'static [Row]);

/// A table of kinds: the heading above it, and the number and name of each.
pub type Kinds = (&'static str, &'static [(u32, &'static str)]);

/// Where `markdown`, the page at `path`, differs from `layouts`.
pub fn check(path: &str, markdown: &str, layouts: &[Layout]) -> Vec<String> {
    layouts.iter().flat_map(|layout| check_layout(path, markdown, *layout)).collect()
}

/// Where `markdown`, the page at `path`, has other kinds.
pub fn check_kinds(path: &str, markdown: &str, tables: &[Kinds]) -> Vec<String> {
    let check = |(name, kinds): &Kinds| {
        let row = |(number, kind): &(u32, &str)| format!("| {number} | {kind} |");
        let rows: Vec<String> = kinds.iter().map(row).collect();
        check_table(path, markdown, name, &rows, kind_row)
    };
    tables.iter().flat_map(check).collect()
}

fn check_layout(path: &str, markdown: &str, (name, rows): Layout) -> Vec<String> {
    let row = |(name, offset, size): &Row| format!("| {offset} | {size} | {name} |");
    let rows: Vec<String> = rows.iter().map(row).collect();
    check_table(path, markdown, name, &rows, table_row)
}

/// Where the table below the heading `name` has other rows than `expected`, as `row` reads them.
fn check_table(
    path: &str,
    markdown: &str,
    name: &str,
    expected: &[String],
    row: fn(&str) -> Option<String>,
) -> Vec<String> {
    let sections: Vec<_> = sections(markdown).filter(|(heading, _)| heading == name).collect();
    let [(_, lines)] = sections.as_slice() else {
        return vec![format!("{path}: {} headings {name:?}, expected one", sections.len())];
    };
    let found: Vec<String> = lines.iter().filter_map(|line| row(line)).collect();
    let mut problems = Vec::new();
    for number in 0..expected.len().max(found.len()) {
        match (expected.get(number), found.get(number)) {
            (Some(code), Some(page)) if code == page => {}
            (Some(code), Some(page)) => {
                problems.push(format!("{path}: {name}: the code has {code}, the page {page}"));
            }
            (Some(code), None) => problems.push(format!("{path}: {name}: no row {code}")),
            (None, Some(page)) => {
                problems.push(format!("{path}: {name}: the code has no row {page}"));
            }
            (None, None) => {}
        }
    }
    problems
}

/// Each heading's text, without marks, and the lines up to the next heading.
fn sections(markdown: &str) -> impl Iterator<Item = (String, Vec<&str>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in markdown.lines() {
        if line.starts_with('#') {
            let text = line.trim_start_matches('#').trim().replace('`', "");
            sections.push((text, Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections.into_iter()
}

/// The first three cells of a table's row, where the first two are numbers.
fn table_row(line: &str) -> Option<String> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let offset: usize = cells.next()?.parse().ok()?;
    let size: usize = cells.next()?.parse().ok()?;
    let name = cells.next()?.trim_matches('`');
    Some(format!("| {offset} | {size} | {name} |"))
}

/// The first two cells of a table's row, where the first is a number.
fn kind_row(line: &str) -> Option<String> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let number: u32 = cells.next()?.parse().ok()?;
    Some(format!("| {number} | {} |", cells.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = ("Head", &[("magic", 0, 8), ("version", 8, 2)]);
    const PAGE: &str = "# A page\n\n### `Head`\n\nText.\n\n| offset | size | name | description |\n\
        |---|---|---|---|\n| 0 | 8 | magic | text |\n| 8 | 2 | `version` | 1 |\n\n### Next\n\n\
        | 0 | 4 | other | |\n";

    fn problems(page: &str) -> Vec<String> {
        check("page.md", page, &[LAYOUT])
    }

    #[test]
    fn a_page_that_tells_what_the_code_does_passes() {
        assert_eq!(problems(PAGE), Vec::<String>::new());
    }

    #[test]
    fn every_planted_difference_is_found() {
        let cases = [
            ("| 8 | 2 |", "| 8 | 4 |", "the page | 8 | 4 | version |"),
            ("| 8 | 2 |", "| 9 | 2 |", "the page | 9 | 2 | version |"),
            ("| magic |", "| magick |", "the page | 0 | 8 | magick |"),
            ("| 8 | 2 | `version` | 1 |\n", "", "no row | 8 | 2 | version |"),
            ("| 1 |\n", "| 1 |\n| 10 | 1 | more | |\n", "the code has no row | 10 | 1 | more |"),
            ("### `Head`", "### Heads", "0 headings \"Head\""),
            ("### Next", "### Head", "2 headings \"Head\""),
        ];
        for (from, to, expected) in cases {
            let found = problems(&PAGE.replace(from, to));
            assert_eq!(found.len(), 1, "{from:?} as {to:?}: {found:?}");
            assert!(found[0].contains(expected), "{found:?} does not say {expected:?}");
        }
    }

    #[test]
    fn every_other_kind_is_found() {
        const KINDS: Kinds = ("Kinds", &[(1, "raw"), (2, "zstd")]);
        let page = "## Kinds\n\n| kind | block |\n|---|---|\n| 1 | raw | text |\n| 2 | zstd |\n";
        let problems = |page: &str| check_kinds("page.md", page, &[KINDS]);
        assert_eq!(problems(page), Vec::<String>::new());
        for (from, to) in [("| 2 |", "| 3 |"), ("zstd", "lz4"), ("| 1 | raw | text |\n", "")] {
            assert!(!problems(&page.replace(from, to)).is_empty(), "{from:?} as {to:?}");
        }
    }
}
