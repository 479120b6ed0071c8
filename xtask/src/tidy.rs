//! `cargo xtask tidy`: the rules of this code base that no compiler checks.

mod code;
mod manifests;
mod sources;
mod strays;

use std::collections::BTreeSet;
use std::fs;

use crate::{Failure, format, report, workspace};

/// Runs every check.
pub fn run() -> Result<(), Failure> {
    let packages = workspace::packages()?;
    let sources = workspace::sources()?;
    let mut problems = manifests::check(&packages);
    let decisions = fs::read_to_string(workspace::root().join("docs/decisions.md"))?;
    problems.extend(manifests::check_decisions(&packages, &decisions));
    for source in &sources {
        problems.extend(sources::check(source));
    }
    let paths: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    problems.extend(check_pages(&paths, &|page| workspace::root().join(page).is_file()));
    let gitignore = fs::read_to_string(workspace::root().join(".gitignore"))?;
    problems.extend(strays::check(&workspace::top()?, &gitignore));
    report("tidy", &problems)
}

/// A crate that has a layout has a page in `docs/format/`, which `format check` knows.
fn check_pages(paths: &BTreeSet<&str>, page_exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for path in paths {
        let Some(name) = path.strip_prefix("crates/").and_then(layout_owner) else { continue };
        match format::PAGES.iter().find(|(_, owner, _)| *owner == name) {
            None => problems.push(format!(
                "{path}: this layout has no page; write docs/format/, and add it to PAGES in \
                 xtask/src/format.rs"
            )),
            Some((page, _, _)) if !page_exists(page) => {
                problems.push(format!("{path}: its page {page} does not exist"));
            }
            Some(_) => {}
        }
    }
    problems
}

/// The crate, where the file is its layout: `CRATE/src/layout.rs`, or in a folder of that name.
fn layout_owner(path: &str) -> Option<&str> {
    let (name, file) = path.split_once("/src/")?;
    (file == "layout.rs" || file.starts_with("layout/")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_without_a_page_is_found() {
        let known = BTreeSet::from(["crates/zkv-log/src/layout.rs", "crates/zkv-log/src/lib.rs"]);
        assert_eq!(check_pages(&known, &|_| true), Vec::<String>::new());
        let missing = check_pages(&known, &|_| false);
        assert!(missing[0].ends_with("its page docs/format/data.md does not exist"), "{missing:?}");
        let unknown = check_pages(&BTreeSet::from(["crates/zkv-new/src/layout.rs"]), &|_| true);
        assert!(unknown[0].contains("this layout has no page"), "{unknown:?}");
    }
}
