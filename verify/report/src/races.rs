//! What the named races say, line by line.

use serde_json::{Value, json};

/// The lines of races, in the order in which they came. `race NAME: N executions, bound B, RECLAMATION, S s`
/// is one that passed; `race NAME: failed in execution N` one that failed, as some must.
pub(crate) fn parse(said: &str) -> Value {
    let mut races = Vec::new();
    for line in said.lines() {
        // The harness puts a dot in front, for the test before, or an `i` for one that is left out.
        let line = line.trim_start_matches(['.', 'i']);
        let Some((name, rest)) = line.strip_prefix("race ").and_then(|line| line.split_once(": ")) else { continue };
        if let Some(execution) = rest.strip_prefix("failed in execution ") {
            races.push(json!({ "name": name, "failed_in": execution.parse::<u64>().ok() }));
            continue;
        }
        let parts: Vec<&str> = rest.split(", ").collect();
        let [executions, bound, reclamation, seconds] = parts[..] else { continue };
        let number = |text: &str, end: &str| text.strip_suffix(end).and_then(|text| text.parse::<f64>().ok());
        races.push(json!({
            "name": name,
            "executions": executions.strip_suffix(" executions").and_then(|count| count.parse::<u64>().ok()),
            "bound": bound.strip_prefix("bound ").and_then(|bound| bound.parse::<u64>().ok()),
            "reclamation": reclamation,
            "seconds": number(seconds, " s"),
        }));
    }
    json!({ "races": races })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_race_is_a_line() {
        let said = "running 2 tests\n.irace a against b: 12 executions, bound 3, modelled, 0.5 s\nrace c (must fail): failed in execution 4\n";
        let parsed = parse(said);
        assert_eq!(parsed["races"][0]["executions"], 12);
        assert_eq!(parsed["races"][0]["bound"], 3);
        assert_eq!(parsed["races"][1]["failed_in"], 4);
        assert_eq!(parsed["races"].as_array().map(Vec::len), Some(2));
    }
}
