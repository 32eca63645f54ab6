//! The page docs/PERFORMANCE.md: text from `page.md`, tables from the records.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::records::{Figure, Records};
use crate::rows::{ELSEWHERE, Goal, ROWS, Row, UNLIKE, Unit};

/// A figure with three digits, in ns or bytes.
pub(crate) fn three_digits(figure: f64) -> String {
    let digits = match figure.abs() {
        f if f >= 99.95 => 0,
        f if f >= 9.995 => 1,
        _ => 2,
    };
    format!("{figure:.digits$}")
}

pub(crate) fn percent(part: f64) -> String {
    format!("{:+.0} %", part * 100.0)
}

/// What came of a row.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) row: &'a Row,
    ours: Figure,
    /// The floor, and ours by it.
    floor: Option<(Figure, Figure)>,
    /// The fastest peer, and it by ours.
    peer: Option<(&'a str, Figure, Figure)>,
    goals: Vec<(Goal, Option<f64>)>,
}

fn named<'a>(row: &'a Row, other: &'a str) -> (&'a str, &'a str) {
    other.rsplit_once('/').unwrap_or((row.group, other))
}

impl<'a> Found<'a> {
    pub(crate) fn new(row: &'a Row, records: &'a Records) -> Option<Self> {
        let ours = (row.group, row.ours);
        let by_other = |other: &'a str| records.ratio(ours, named(row, other));
        let is_peer = |function: &&str| {
            !function.starts_with("upager") && Some(*function) != row.floor && !UNLIKE.contains(function)
        };
        let peer = records
            .functions(row.group)
            .filter(is_peer)
            .filter_map(|peer| Some((peer, records.figure(row.group, peer)?)))
            .min_by(|a, b| a.1.median.total_cmp(&b.1.median));
        let reached = |goal: Goal| match goal {
            Goal::AtMost(_, other) => by_other(other).map(|ratio| ratio.median),
            Goal::Faster(_, other) => records.ratio(named(row, other), ours).map(|ratio| ratio.median),
            Goal::Within(_) => records.figure(row.group, row.ours).map(|figure| figure.median),
        };
        Some(Self {
            row,
            ours: records.figure(row.group, row.ours)?,
            floor: row.floor.and_then(|floor| Some((records.figure(row.group, floor)?, by_other(floor)?))),
            peer: peer.and_then(|(peer, figure)| Some((peer, figure, records.ratio((row.group, peer), ours)?))),
            goals: row.goals.iter().map(|goal| (*goal, reached(*goal))).collect(),
        })
    }

    fn is_goal_met((goal, reached): &(Goal, Option<f64>)) -> bool {
        reached.is_some_and(|reached| match goal {
            Goal::AtMost(limit, _) | Goal::Within(limit) => reached <= *limit,
            Goal::Faster(limit, _) => reached >= *limit,
        })
    }

    /// `None`: there is no goal.
    pub(crate) fn is_met(&self) -> Option<bool> {
        (!self.goals.is_empty()).then(|| self.goals.iter().all(Self::is_goal_met))
    }

    fn is_peer_faster(&self) -> bool {
        self.peer.as_ref().is_some_and(|(_, _, ratio)| ratio.median < 1.0)
    }

    fn goals(&self) -> String {
        let goal = |(goal, reached): &(Goal, Option<f64>)| {
            let met = if Self::is_goal_met(&(*goal, *reached)) { "" } else { "**" };
            let reached = reached.map_or_else(|| "not measured".to_owned(), three_digits);
            let short = |other: &str| {
                other
                    .replace("resident/random/upager_pinned", "one thread")
                    .replace("detach/size_1_mib/upager", "1 MiB")
            };
            let limit = match goal {
                Goal::AtMost(limit, other) => format!("at most {limit} x {}", short(other)),
                Goal::Faster(limit, other) => format!("{limit} x faster than {}", short(other)),
                Goal::Within(limit) => format!("at most {limit} {}", self.row.unit.name()),
            };
            format!("{met}{limit}: {reached}{met}")
        };
        self.goals.iter().map(goal).collect::<Vec<_>>().join("; ")
    }

    fn line(&self) -> String {
        let Self { row, ours, floor, peer, .. } = self;
        let floor = floor.map_or_else(
            || "- | -".to_owned(),
            |(floor, ratio)| format!("{} | {}", three_digits(floor.median), three_digits(ratio.median)),
        );
        let peer = peer.as_ref().map_or_else(
            || "- | -".to_owned(),
            |(name, figure, ratio)| format!("{} {name} | {}", three_digits(figure.median), three_digits(ratio.median)),
        );
        let met = match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let spread = ours.spread() * 100.0;
        format!(
            "| {} | {} | {floor} | {peer} | {spread:.0} % | {} | {met} |",
            row.what,
            three_digits(ours.median),
            self.goals()
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        let goal = |goal: &(Goal, Option<f64>)| {
            let (kind, limit, other) = match goal.0 {
                Goal::AtMost(limit, other) => ("at most times", limit, other),
                Goal::Faster(limit, other) => ("faster than", limit, other),
                Goal::Within(limit) => ("at most", limit, ""),
            };
            json!({ "kind": kind, "limit": limit, "other": other, "reached": goal.1, "met": Self::is_goal_met(goal) })
        };
        json!({
            "what": self.row.what, "group": self.row.group, "function": self.row.ours, "unit": self.row.unit.name(),
            "ours": self.ours.median, "spread": self.ours.spread(),
            "floor": self.row.floor, "floor_figure": self.floor.map(|floor| floor.0.median),
            "by_floor": self.floor.map(|floor| floor.1.median),
            "best_peer": self.peer.as_ref().map(|peer| peer.0),
            "best_peer_figure": self.peer.as_ref().map(|peer| peer.1.median),
            "peer_by_ours": self.peer.as_ref().map(|peer| peer.2.median),
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(), "met": self.is_met(),
        })
    }
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
        }
    }
}

/// Everything that is on the page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) records: &'a Records,
    pub(crate) about: &'a str,
    pub(crate) plots: &'a [(String, &'static str)],
    pub(crate) accounting: &'a Value,
    pub(crate) instructions: &'a Value,
}

pub(crate) fn found(records: &Records) -> Vec<Found<'_>> {
    ROWS.iter().filter_map(|row| Found::new(row, records)).collect()
}

impl Page<'_> {
    pub(crate) fn text(&self) -> String {
        include_str!("page.md")
            .replace("{about}", self.about)
            .replace("{summary}", &self.summary())
            .replace("{table}", &self.table())
            .replace("{missed}", &self.missed())
            .replace("{plots}", &self.plots())
            .replace("{accounting}", &self.accounting())
            .replace("{instructions}", &self.instructions())
            .replace("{figures}", &self.figures())
    }

    fn summary(&self) -> String {
        let found = found(self.records);
        let count = |met| found.iter().filter(|found| found.is_met() == Some(met)).count();
        let faster = found.iter().filter(|found| found.is_peer_faster()).count();
        let (met, missed, rounds) = (count(true), count(false), self.records.rounds());
        format!(
            "{rounds} rounds; {} rows, of which {met} meet their goals, {missed} miss one and {} have none; \
             a peer is faster in {faster}.",
            found.len(),
            found.len() - met - missed
        )
    }

    fn table(&self) -> String {
        let mut text = "| path | ours | floor | ours / floor | best peer | peer / ours | spread | goal: reached | |\n\
             | --- | ---: | ---: | ---: | --- | ---: | ---: | --- | --- |\n"
            .to_owned();
        for found in found(self.records) {
            let _ = writeln!(text, "{}", found.line());
        }
        for (what, goal) in ELSEWHERE {
            let _ = writeln!(
                text,
                "| {what} | - | - | - | - | - | - | {goal} | not in this run: `cargo bench -p upager-linux --bench touch` |"
            );
        }
        text
    }

    /// The rows that want a reason, by reason.
    fn missed(&self) -> String {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for found in found(self.records) {
            let what = match (found.is_met() == Some(false), found.is_peer_faster()) {
                (true, true) => "misses its goal, and a peer is faster",
                (true, false) => "misses its goal",
                (false, true) => "a peer is faster",
                (false, false) => continue,
            };
            let what = format!("**{}** ({what})", found.row.what);
            match reasons.iter_mut().find(|(why, _)| *why == found.row.missed) {
                Some((_, rows)) => rows.push(what),
                None => reasons.push((found.row.missed, vec![what])),
            }
        }
        let line = |(why, rows): (&str, Vec<String>)| {
            let why = if why.is_empty() { "Not looked into yet." } else { why };
            format!("- {}. {why}\n", rows.join("; "))
        };
        if reasons.is_empty() { "None.\n".to_owned() } else { reasons.into_iter().map(line).collect() }
    }

    fn plots(&self) -> String {
        let plot = |(file, title): &(String, &str)| format!("![{title}](performance/{file})\n");
        self.plots.iter().map(plot).collect::<Vec<_>>().join("\n")
    }

    fn accounting(&self) -> String {
        let Some(calls) = self.accounting.as_array() else { return "Not counted in this run.\n".to_owned() };
        let mut text =
            "| call | loads | stores | RMWs | lines | writes to |\n| --- | ---: | ---: | ---: | ---: | --- |\n"
                .to_owned();
        let mut contenders = Vec::new();
        for call in calls {
            let lines = call["lines"].as_array().map_or(&[][..], Vec::as_slice);
            let mut written: Vec<(&str, u64)> = Vec::new();
            for line in lines {
                let times = line["stores"].as_u64().unwrap_or(0) + line["rmws"].as_u64().unwrap_or(0);
                let (name, who) = (line["name"].as_str().unwrap_or("?"), line["contenders"].as_str().unwrap_or("?"));
                if times == 0 {
                    continue;
                }
                match written.iter_mut().find(|written| written.0 == name) {
                    Some(same) => same.1 += times,
                    None => written.push((name, times)),
                }
                if !contenders.contains(&(name, who)) {
                    contenders.push((name, who));
                }
            }
            let each = |(name, times): &(&str, u64)| {
                if *times > 1 { format!("{name} ({times})") } else { (*name).to_owned() }
            };
            let writes = written.iter().map(each).collect::<Vec<_>>().join(", ");
            let writes = if writes.is_empty() { "nothing shared".to_owned() } else { writes };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {writes} |",
                call["call"].as_str().unwrap_or("?"),
                call["loads"],
                call["stores"],
                call["rmws"],
                lines.len()
            );
        }
        text.push_str("\n| line | who contends for it |\n| --- | --- |\n");
        contenders.sort_unstable();
        for (line, who) in contenders {
            let _ = writeln!(text, "| {line} | {who} |");
        }
        text
    }

    fn instructions(&self) -> String {
        let Some(paths) = self.instructions.as_object() else { return "Not counted in this run.\n".to_owned() };
        let mut text = "| path | instructions |\n| --- | ---: |\n".to_owned();
        for (path, count) in paths {
            let count = count.as_f64().unwrap_or(0.0);
            let _ = writeln!(text, "| {} | {count:.0} |", path.replace('_', " "));
        }
        text
    }

    fn figures(&self) -> String {
        let mut text = String::new();
        for group in self.records.groups() {
            let _ = writeln!(text, "\n| {group} | median | spread |\n| --- | ---: | ---: |");
            let mut figures: Vec<_> = self
                .records
                .functions(group)
                .filter_map(|function| Some((function, self.records.figure(group, function)?)))
                .collect();
            figures.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
            for (function, figure) in figures {
                let (median, spread) = (three_digits(figure.median), figure.spread() * 100.0);
                let _ = writeln!(text, "| {function} | {median} | {spread:.0} % |");
            }
        }
        text
    }
}

/// The rows for a terminal.
pub(crate) fn terminal(found: &[Found<'_>]) -> String {
    let mut text = String::new();
    for found in found {
        let floor = found.floor.map_or(String::new(), |floor| format!("{} x floor", three_digits(floor.1.median)));
        let peer = found.peer.as_ref();
        let peer = peer.map_or(String::new(), |(name, _, ratio)| format!("{name} {} x", three_digits(ratio.median)));
        let met = match found.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let ours = three_digits(found.ours.median);
        let _ = writeln!(text, "{:44} {ours:>8} {floor:14} {peer:30} {met}", found.row.what);
    }
    text
}
