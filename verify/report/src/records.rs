//! The records, as they are on disk.

use std::path::Path;

use serde_json::Value;

/// What a command wrote, and of what it is.
pub(crate) struct Record {
    pub(crate) value: Value,
    run: Value,
}

impl Record {
    /// `None`: the command was not run.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<Self>, String> {
        let read = |name: String| {
            let file = folder.join(name);
            match std::fs::read_to_string(&file) {
                Ok(text) => {
                    serde_json::from_str(&text).map(Some).map_err(|error| format!("{}: {error}", file.display()))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: {error}", file.display())),
            }
        };
        let run = read(format!("{name}.run.json"))?;
        let value: Option<Value> = read(format!("{name}.json"))?;
        Ok(value.map(|value| Self { value, run: run.unwrap_or_default() }))
    }

    pub(crate) fn passed(&self) -> bool {
        self.run["passed"].as_bool().unwrap_or(false)
    }

    /// The commit, and whether files had been changed since.
    pub(crate) fn commit(&self) -> String {
        let changed = if self.run["changed"].as_bool().unwrap_or(true) { ", and changes" } else { "" };
        format!("{}{changed}", self.run["commit"].as_str().unwrap_or("of no commit that is known"))
    }

    /// When it ended.
    pub(crate) fn ended(&self) -> &str {
        self.run["ended"].as_str().unwrap_or("-")
    }

    /// On what, and built by what.
    pub(crate) fn machine(&self) -> String {
        let text = |key: &str| self.run[key].as_str().unwrap_or("-");
        format!("{}; {}", text("machine"), text("compiler"))
    }

    /// How long it took, in seconds.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.value["elapsed_s"].as_f64()
    }

    pub(crate) fn list(&self, key: &str) -> &[Value] {
        self.value[key].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// 1234567 is 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A few seconds, or minutes, or hours.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole minutes of a run
pub(crate) fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match minutes {
        0..2 => format!("{seconds:.0} s"),
        2..120 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, grouped};

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([7, 123, 1234, 1_234_567].map(grouped), ["7", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn durations_are_in_the_unit_that_fits() {
        assert_eq!([3.4, 119.0, 130.0, 7260.0].map(duration), ["3 s", "119 s", "2 min", "2 h 1 min"]);
    }
}
