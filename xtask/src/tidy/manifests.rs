//! Which crate may depend on which, and what a manifest has to say.

use std::collections::BTreeSet;

use crate::workspace::Package;

/// All edges that the architecture allows (docs/architecture.md): they point down only. xtask looks
/// at everything and is named by nothing.
const EDGES: &[(&str, &[&str])] = &[
    ("zkv-io", &[]),
    ("zkv-record", &["zkv-io"]),
    ("zkv-log", &["zkv-io"]),
    ("zkv-index", &["zkv-io"]),
    ("zkv-store", &["zkv-io", "zkv-record", "zkv-log", "zkv-index"]),
    ("zkv-cli", &["zkv-store"]),
    ("zkv-sim", &["zkv-io"]),
    ("zkv-fuzz", &["zkv-io", "zkv-record", "zkv-log", "zkv-index", "zkv-store", "zkv-sim"]),
    ("zkv-measure", &["zkv-io", "zkv-record", "zkv-log", "zkv-store"]),
    ("zkv-bench", &["zkv-store", "zkv-measure"]),
    ("zkv-model", &[]),
    (
        "xtask",
        &["zkv-io", "zkv-record", "zkv-log", "zkv-index", "zkv-store", "zkv-sim", "zkv-measure"],
    ),
];

/// What any crate's tests may use.
const FOR_TESTS: &[&str] = &["zkv-sim"];

/// What is wrong with the manifests of `packages`.
pub fn check(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<String> {
    let name = &package.name;
    let Some((_, allowed)) = EDGES.iter().find(|(from, _)| from == name) else {
        return vec![format!(
            "{name}: a crate that the architecture does not know; add it to docs/architecture.md \
             and to EDGES in xtask/src/tidy/manifests.rs"
        )];
    };
    let mut problems: Vec<String> = package
        .dependencies
        .iter()
        .filter(|to| !(to.is_for_tests() && FOR_TESTS.contains(&to.name.as_str())))
        .map(|dependency| dependency.name.as_str())
        .filter(|to| EDGES.iter().any(|(from, _)| from == to) && !allowed.contains(to))
        .map(|to| format!("{name}: depends on {to}, which the architecture forbids"))
        .collect();
    if package.description.as_deref().is_none_or(|text| text.len() < 10) {
        problems.push(format!("{name}: its Cargo.toml has no description"));
    }
    problems
}

/// Where the dependencies of `packages` and the rows of `docs/decisions.md` differ.
pub fn check_decisions(packages: &[Package], decisions: &str) -> Vec<String> {
    let own: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let used = packages.iter().flat_map(|package| &package.dependencies);
    let used = used.filter(|dependency| dependency.path.is_none());
    let used: BTreeSet<&str> = used.map(|dependency| dependency.name.as_str()).collect();
    let used: BTreeSet<&str> = used.difference(&own).copied().collect();
    let decided: BTreeSet<&str> = decisions.lines().flat_map(decided_in).collect();
    let missing = used.difference(&decided);
    let stale = decided.difference(&used);
    missing
        .map(|name| format!("docs/decisions.md: no row for the dependency {name}"))
        .chain(stale.map(|name| format!("docs/decisions.md: nothing depends on {name}")))
        .collect()
}

/// The dependencies that a table's row names: links in its first cell.
fn decided_in(line: &str) -> impl Iterator<Item = &str> {
    let cell = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()).unwrap_or("");
    let links = cell.split('[').skip(1);
    links.filter_map(|link| link.split_once("](").map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency { name: name.to_owned(), kind: kind.map(str::to_owned), path: None }
    }

    fn package(name: &str, dependencies: &[&str], description: Option<&str>) -> Package {
        let dependencies = dependencies.iter().map(|name| dependency(name, None)).collect();
        let description = description.map(str::to_owned);
        Package { name: name.to_owned(), description, dependencies, publish: None }
    }

    fn problems(name: &str, dependencies: &[&str], description: Option<&str>) -> Vec<String> {
        check(&[package(name, dependencies, description)])
    }

    #[test]
    fn edges_that_point_down_pass() {
        assert!(problems("zkv-log", &["zkv-io", "zstd-safe"], Some("the log crate")).is_empty());
    }

    #[test]
    fn each_forbidden_edge_is_found() {
        let cases = [
            ("zkv-io", "zkv-record"),
            ("zkv-record", "zkv-log"),
            ("zkv-log", "zkv-index"),
            ("zkv-index", "zkv-log"),
            ("zkv-log", "zkv-store"),
            ("zkv-store", "zkv-cli"),
            ("zkv-cli", "zkv-log"),
            ("zkv-store", "xtask"),
        ];
        for (from, to) in cases {
            let found = problems(from, &["serde", to], Some("a description"));
            assert_eq!(found, [format!("{from}: depends on {to}, which the architecture forbids")]);
        }
    }

    #[test]
    fn only_tests_may_use_the_simulated_disk() {
        let mut package = package("zkv-log", &["zkv-sim"], Some("a description"));
        assert_eq!(check(std::slice::from_ref(&package)).len(), 1);
        package.dependencies = vec![dependency("zkv-sim", Some("dev"))];
        assert_eq!(check(std::slice::from_ref(&package)), Vec::<String>::new());
        package.dependencies = vec![dependency("zkv-store", Some("dev"))];
        assert_eq!(check(std::slice::from_ref(&package)).len(), 1);
    }

    #[test]
    fn a_crate_that_nobody_placed_and_one_without_description_are_found() {
        assert!(problems("zkv-new", &[], Some("a description"))[0].contains("does not know"));
        for description in [None, Some(""), Some("short")] {
            assert_eq!(problems("zkv-io", &[], description).len(), 1);
        }
    }

    #[test]
    fn a_dependency_without_a_row_and_a_row_without_a_dependency_are_found() {
        let packages =
            [package("zkv-io", &["a", "b"], None), package("zkv-log", &["zkv-io", "c"], None)];
        let page = |rows: &str| format!("# Title\n\n| dependency | what for |\n|---|---|\n{rows}");
        let whole = page("| [a](x), [b](y) | see [d](z) |\n| [c](x) | text |\n");
        assert_eq!(check_decisions(&packages, &whole), Vec::<String>::new());
        let found = check_decisions(&packages, &page("| [a](x), [c](y) | text |\n| [d](x) | |\n"));
        let expected = [
            "docs/decisions.md: no row for the dependency b",
            "docs/decisions.md: nothing depends on d",
        ];
        assert_eq!(found, expected);
    }
}
