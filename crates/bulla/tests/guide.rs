//! docs/migrate-openstack.md shows the lines of an example that is compiled, and no others.
#![allow(clippy::unwrap_used, reason = "tests")]

const GUIDE: &str = include_str!("../../../docs/migrate-openstack.md");
const EXAMPLE: &str = include_str!("../examples/trove_conductor.rs");

/// The lines between the marks of that name, and imports that the guide may show.
fn shown(name: &str) -> Vec<&'static str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in EXAMPLE.lines().map(str::trim) {
        match line.strip_prefix("// guide: ") {
            Some(mark) => inside = mark == name,
            None if inside => lines.push(line),
            None => {}
        }
    }
    assert!(!lines.is_empty(), "the example has nothing of {name}");
    lines
}

/// The guide's block of which the first line is `first`.
fn block(first: &str) -> Vec<&'static str> {
    let mut lines = GUIDE.lines().skip_while(|line| line.trim() != first);
    let code = |line: &&str| line.starts_with("    ") || line.is_empty();
    let mut block: Vec<_> = lines.by_ref().take_while(code).map(str::trim).collect();
    while block.last() == Some(&"") {
        block.pop();
    }
    block
}

#[test]
fn its_rust_is_what_is_compiled() {
    for name in ["conductor", "legacy"] {
        let shown = shown(name);
        assert_eq!(block(shown[0]), shown, "{name}");
    }
}
