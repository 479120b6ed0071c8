//! What lies at the top of the workspace and should not.

/// All that belongs there.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "crates",
    "docs",
    "fuzz",
    "rustfmt.toml",
    "xtask",
];

/// Names of `top` that nobody knows, but for those that `gitignore` keeps out of commits.
pub fn check(top: &[String], gitignore: &str) -> Vec<String> {
    let ignored: Vec<&str> = gitignore.lines().map(|line| line.trim_matches('/')).collect();
    top.iter()
        .filter(|name| !TOP.contains(&name.as_str()) && !ignored.contains(&name.as_str()))
        .map(|name| {
            format!("{name}: does not belong at the top; move it, or add it to tidy/strays.rs")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_is_found_and_what_is_ignored_is_none() {
        let top = ["README.md", "target", "trace.txt"].map(String::from);
        let problems = check(&top, "/target\n*.tmp\n");
        assert!(problems.len() == 1 && problems[0].starts_with("trace.txt:"), "{problems:?}");
    }
}
