//! The mutants that are no mistakes: verify/EQUIVALENT.md says which, and why.
//!
//! A section is a heading, then the mutants as a list of names in backquotes, then the argument.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::failure::Failure;

/// The names of all mutants that are accepted.
pub(crate) fn read(path: &Path) -> Result<HashSet<String>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(Failure::file(path, &error)),
    };
    parse(&text).map_err(|why| Failure::new(format!("{}: {why}", path.display())))
}

fn parse(text: &str) -> Result<HashSet<String>, String> {
    let mut accepted = HashSet::new();
    for section in text.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let names: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
        let argues = section.lines().skip(1).any(|line| !line.is_empty() && !line.starts_with("- `"));
        if !names.is_empty() && !argues {
            return Err(format!("no argument under '{title}'"));
        }
        for name in names {
            if !accepted.insert(name.to_string()) {
                return Err(format!("{name} is there twice"));
            }
        }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_name_mutants_and_argue() {
        let text = "# Title\n\nIntroduction with a `name`.\n\n## Hints\n\n- `a.rs/f/to-Relaxed/1`\n- `a.rs/f/to-Relaxed/2`\n\nThey only steer.\n";
        let accepted = parse(text).unwrap();
        assert_eq!(accepted.len(), 2);
        assert!(accepted.contains("a.rs/f/to-Relaxed/2"));
    }

    #[test]
    fn a_section_without_an_argument_is_refused() {
        assert!(parse("# Title\n\n## Hints\n\n- `a.rs/f/to-Relaxed/1`\n").is_err());
    }
}
