//! The models that may notice a mistake, and what they say.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::together::VARIABLE;
use crate::tree::Tree;

/// A cell of the matrix, a test of the named races, or a pair of calls of which one stops. Or, where no model
/// noticed, a behaviour test.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Model {
    Cell(String),
    Race(String),
    Stop(String),
    Test(String),
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell(name) => write!(f, "cell {name}"),
            Self::Race(name) => write!(f, "race {name}"),
            Self::Stop(name) => write!(f, "stop {name}"),
            Self::Test(name) => write!(f, "test {name}"),
        }
    }
}

impl Model {
    /// What it is one of.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Cell(_) => "cells",
            Self::Race(_) => "races",
            Self::Stop(_) => "stops",
            Self::Test(_) => "tests",
        }
    }

    /// What [`Display`](fmt::Display) has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ')?;
        match kind {
            "cell" => Some(Self::Cell(name.to_string())),
            "race" => Some(Self::Race(name.to_string())),
            "stop" => Some(Self::Stop(name.to_string())),
            "test" => Some(Self::Test(name.to_string())),
            _ => None,
        }
    }
}

/// A mistake was noticed.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) by: Model,
    pub(crate) bound: usize,
    /// In which execution of the model. `None`: the process ended before it could say so.
    pub(crate) execution: Option<u64>,
    /// The model's words, in a line.
    pub(crate) why: String,
}

/// What a run of models came to.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Passed,
    Killed(Kill),
    /// So far this model had come.
    TimedOut(Model),
}

/// The memory that a model may take: a mistake that allocates for ever must not end the run.
const MEMORY_KIB: u64 = 6 << 20;
/// A processor explores more executions than this in a second. Limits are in processor time, so that
/// they mean the same beside other work.
const RATE: usize = 1000;
/// So many seconds more, for a process that has hung without using its processor.
const IDLE: u64 = 120;

/// How a process ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
    TimedOut,
}

/// Runs a program for so many seconds of processor time, and returns how it ended and what it said.
fn run(
    tree: &Tree,
    program: &Path,
    arguments: &[&str],
    seconds: u64,
    variables: &[(&str, &str)],
) -> Result<(Ended, String), Failure> {
    let log = &tree.scratch("model.log");
    let failed = |error| Failure::file(log, &error);
    let file = File::create(log).map_err(failed)?;
    let both = file.try_clone().map_err(failed)?;
    let limits = format!("ulimit -c 0; ulimit -v {MEMORY_KIB}; ulimit -t {seconds}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(limits).arg(program).args(arguments).envs(variables.iter().copied());
    if let Some(mistake) = tree.chosen {
        command.env(VARIABLE, mistake.to_string());
    }
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(file).stderr(both);
    let mut child = command.spawn().map_err(failed)?;
    let begun = Instant::now();
    let ended = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => break Ended::Well,
            // SIGXCPU, or SIGKILL where that was not enough.
            Some(status) if matches!(status.signal(), Some(24 | 9)) => break Ended::TimedOut,
            Some(_) => break Ended::Badly,
            None if begun.elapsed() > Duration::from_secs(seconds * 10 + IDLE) => {
                let _ = child.kill();
                let _ = child.wait();
                break Ended::TimedOut;
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let said = fs::read(log).map_err(failed)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let no_memory = ended == Ended::Badly && said.contains(NO_MEMORY);
    Ok((if no_memory { Ended::TimedOut } else { ended }, said))
}

/// What a program says last that had no memory, and could not go on.
const NO_MEMORY: &str = "memory allocation of";

/// How many executions a model may have that has `usual` without a mistake.
fn patience(usual: usize) -> usize {
    (usual * 20).min(usual + 500_000) + 2000
}

/// The processor time for so many executions, in seconds.
const fn time(executions: usize) -> u64 {
    (executions / RATE + 20) as u64
}

/// Runs the matrix over these cells, one after the other, to this bound and with these options, for so many seconds of processor
/// time.
fn explore_cells(
    tree: &Tree,
    cells: &[Measured],
    bound: usize,
    options: &[&str],
    seconds: u64,
) -> Result<(Ended, String), Failure> {
    let (list, bound) = (listed(tree, "cells.txt", cells)?, bound.to_string());
    let arguments = [&["--jobs", "1", "--announce", "--only-bound", &bound, "--cells", &list], options].concat();
    run(tree, &tree.matrix(), &arguments, seconds, &[])
}

/// The same with pairs of calls of which one stops.
fn explore_stops(tree: &Tree, stops: &[Measured], options: &[&str], seconds: u64) -> Result<(Ended, String), Failure> {
    let list = listed(tree, "stops.txt", stops)?;
    run(tree, &tree.stopped(), &[&["--jobs", "1", "--announce", "--models", &list], options].concat(), seconds, &[])
}

/// Writes the names of the models, one a line, to a file, and returns its name.
fn listed(tree: &Tree, file: &str, models: &[Measured]) -> Result<String, Failure> {
    let list = tree.scratch(file);
    let names: Vec<&str> = models.iter().map(|(name, _)| name.as_str()).collect();
    fs::write(&list, names.join("\n")).map_err(|error| Failure::file(&list, &error))?;
    Ok(list.to_string_lossy().into_owned())
}

/// The processor time for exploring all of these, in seconds.
fn time_of(models: &[Measured]) -> u64 {
    time(models.iter().map(|(_, usual)| usual).sum())
}

/// The model that a program said last that it explores.
fn announced(said: &str) -> Option<&str> {
    said.lines().rev().find_map(|line| line.strip_prefix("exploring "))
}

/// Explores cells, one after the other, until one fails.
pub(crate) fn cells(tree: &Tree, cells: &[Measured], bound: usize) -> Result<Verdict, Failure> {
    let Some(most) = cells.iter().map(|(_, usual)| *usual).max() else { return Ok(Verdict::Passed) };
    let most = patience(most).to_string();
    let (ended, said) = explore_cells(tree, cells, bound, &["--fail-fast", "--give-up", &most], time_of(cells))?;
    let announced = announced(&said);
    let running = Model::Cell(announced.unwrap_or_default().to_string());
    Ok(match ended {
        Ended::Well if said.contains("cells given up") => Verdict::TimedOut(running),
        Ended::Well => Verdict::Passed,
        Ended::TimedOut => Verdict::TimedOut(running),
        Ended::Badly if announced.is_none() => return Err(Failure::new(format!("the matrix says: {said}"))),
        Ended::Badly => {
            let mut lines = said.lines().skip_while(|line| !line.starts_with("FAILED "));
            let by = lines.next().and_then(|line| line.strip_prefix("FAILED "));
            let by = by.map_or(running, |name| Model::Cell(name.to_string()));
            let why = lines.next().unwrap_or("the process ended").to_string();
            let execution = why.strip_prefix("in execution ").and_then(|rest| rest.split(':').next()?.parse().ok());
            let why = why.split_once(": ").map_or(why.clone(), |(_, why)| why.to_string());
            Verdict::Killed(Kill { by, bound, execution, why })
        }
    })
}

/// Explores all of these cells, and returns which notice the mistake; and whether it came to the end of them.
pub(crate) fn noticing_cells(tree: &Tree, cells: &[Measured], bound: usize) -> Result<(HashSet<Model>, bool), Failure> {
    noticing(cells, Model::Cell, |left| {
        // A mistake that has a cell go on without end is not waited for: it is noticed by others.
        let most = left.iter().map(|(_, usual)| *usual).max().unwrap_or_default() * 4 + 500;
        explore_cells(tree, left, bound, &["--give-up", &most.to_string()], time_of(left))
    })
}

/// The same of pairs of calls of which one stops.
pub(crate) fn noticing_stops(tree: &Tree, stops: &[Measured]) -> Result<(HashSet<Model>, bool), Failure> {
    noticing(stops, Model::Stop, |left| explore_stops(tree, left, &[], time_of(left)))
}

/// A model that ends the process notices the mistake, and the others are explored after it.
fn noticing(
    all: &[Measured],
    model: fn(String) -> Model,
    explore: impl Fn(&[Measured]) -> Result<(Ended, String), Failure>,
) -> Result<(HashSet<Model>, bool), Failure> {
    let (mut left, mut noticing) = (all, HashSet::new());
    while !left.is_empty() {
        let (ended, said) = explore(left)?;
        let failed = said.lines().filter_map(|line| line.strip_prefix("FAILED "));
        noticing.extend(failed.map(|name| model(name.to_string())));
        // What a mistake that hangs has not come to is not waited for: other mistakes tell.
        if ended == Ended::TimedOut {
            return Ok((noticing, false));
        }
        if ended == Ended::Well || said.contains(" passed, ") {
            break;
        }
        let last = announced(&said);
        let Some(at) = left.iter().position(|(name, _)| Some(name.as_str()) == last) else {
            return Err(Failure::new(format!("the models say: {said}")));
        };
        noticing.insert(model(left[at].0.clone()));
        left = &left[at + 1..];
    }
    Ok((noticing, true))
}

/// Explores pairs of calls of which one stops, one after the other, until one fails.
pub(crate) fn stops(tree: &Tree, stops: &[Measured]) -> Result<Verdict, Failure> {
    if stops.is_empty() {
        return Ok(Verdict::Passed);
    }
    let (ended, said) = explore_stops(tree, stops, &["--fail-fast"], time_of(stops))?;
    let announced = announced(&said);
    let running = Model::Stop(announced.unwrap_or_default().to_string());
    Ok(match ended {
        Ended::Well => Verdict::Passed,
        Ended::TimedOut => Verdict::TimedOut(running),
        Ended::Badly if announced.is_none() => return Err(Failure::new(format!("the stopped models say: {said}"))),
        Ended::Badly => {
            let mut lines = said.lines().skip_while(|line| !line.starts_with("FAILED "));
            let by = lines.next().and_then(|line| line.strip_prefix("FAILED "));
            let by = by.map_or(running, |name| Model::Stop(name.to_string()));
            let why = lines.next().unwrap_or("the process ended").to_string();
            Verdict::Killed(Kill { by, bound: 0, execution: None, why })
        }
    })
}

/// What the test harness says of a race that must fail, and did not.
const MUST_FAIL: &str = "did not panic as expected";

/// Explores one race, no further than `bound`.
pub(crate) fn race(tree: &Tree, (name, usual): &Measured, bound: usize) -> Result<Verdict, Failure> {
    let program = tree.races()?;
    let arguments = ["--exact", name, "--test-threads", "1", "--nocapture"];
    let (bound_text, limit) = (format!("{bound}-"), patience(*usual));
    let limit_text = limit.to_string();
    let variables = [("RACE_BOUND", bound_text.as_str()), ("RACE_LIMIT", limit_text.as_str())];
    let (ended, said) = run(tree, &program, &arguments, time(limit), &variables)?;
    let by = Model::Race(name.clone());
    Ok(match ended {
        Ended::Well if said.contains(": gave up") => Verdict::TimedOut(by),
        Ended::Well => Verdict::Passed,
        Ended::TimedOut => Verdict::TimedOut(by),
        Ended::Badly => {
            let execution = said.split("failed in execution ").nth(1);
            let execution = execution.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
            let silent = if said.contains(MUST_FAIL) { MUST_FAIL } else { "the process ended" };
            let why = lines.nth(1).unwrap_or(silent).to_string();
            Verdict::Killed(Kill { by, bound, execution, why })
        }
    })
}

/// Explores one model, which has `usual` executions without a mistake, to this bound.
pub(crate) fn one(tree: &Tree, model: &Model, (bound, usual): (usize, usize)) -> Result<Verdict, Failure> {
    match model {
        Model::Cell(name) => cells(tree, &[(name.clone(), usual)], bound),
        Model::Race(name) => race(tree, &(name.clone(), usual), bound),
        Model::Stop(name) => stops(tree, &[(name.clone(), usual)]),
        Model::Test(_) => Ok(Verdict::Passed),
    }
}

/// Runs the behaviour tests.
pub(crate) fn tests(tree: &Tree, program: &Path) -> Result<Verdict, Failure> {
    // What many threads come to is luck, with a mistake and without.
    let arguments = ["--test-threads", "1", "--skip", "many_threads"];
    let (mut ended, said) = run(tree, program, &arguments, 30, &[("PROPTEST_CASES", "32")])?;
    if ended == Ended::TimedOut && said.contains(NO_MEMORY) && program == tree.allocations()? {
        ended = Ended::Badly; // these refuse it, and the core must go on
    }
    // What it has said is told again in the end, by name, if it came to that.
    let failed = said.lines().find_map(|line| line.strip_prefix("---- ")?.strip_suffix(" stdout ----"));
    let failed =
        failed.or_else(|| said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")));
    if failed.is_some() {
        ended = Ended::Badly; // whatever became of those after it
    }
    let unfinished = said.lines().rev().find_map(|line| line.strip_prefix("test ")?.split(" ... ").next());
    let by = Model::Test(failed.or(unfinished).unwrap_or_default().to_string());
    Ok(match ended {
        Ended::Well => Verdict::Passed,
        Ended::TimedOut => Verdict::TimedOut(by),
        Ended::Badly => {
            Verdict::Killed(Kill { by, bound: 0, execution: None, why: "a behaviour test fails".to_string() })
        }
    })
}

/// Which mistakes the models come by, of those that are built together.
#[derive(Debug, Default)]
pub(crate) struct Reached(HashMap<(Model, usize), HashSet<u32>>);

impl Reached {
    /// Whether the model comes by the mistake when it is explored to this bound. It may, if nothing is known.
    pub(crate) fn by(&self, model: &Model, bound: usize, mistake: u32) -> bool {
        self.0.get(&(model.clone(), bound)).is_none_or(|reached| reached.contains(&mistake))
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What a program said that was to tell. Each execution is told of when the next one begins, or at the end:
    /// `running` is the model that runs when the first begins.
    fn read(said: &str, bound: usize, running: Option<&Model>, model: fn(String) -> Model) -> Self {
        let mut all: HashMap<(Model, usize), HashSet<u32>> = HashMap::new();
        let mut sets: Vec<Vec<u32>> = Vec::new();
        let (mut announced, mut told) = (running.cloned(), None);
        for line in said.lines() {
            if let Some(name) = line.strip_prefix("exploring ") {
                announced = Some(model(name.to_string()));
            } else if let Some(set) = line.strip_prefix("reached ") {
                let set = match set.split_once(" =") {
                    Some((_, numbers)) => {
                        sets.push(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect());
                        sets.last()
                    }
                    None => set.parse().ok().and_then(|number: usize| sets.get(number)),
                };
                if let (Some(model), Some(set)) = (told.take(), set) {
                    all.entry((model, bound)).or_default().extend(set);
                }
                told.clone_from(&announced);
            }
        }
        Self(all)
    }
}

/// Which mistakes these cells come by.
pub(crate) fn reached_by_cells(tree: &Tree, cells: &[Measured], bound: usize) -> Result<Reached, Failure> {
    let (ended, said) = explore_cells(tree, cells, bound, &[], 3600)?;
    if ended != Ended::Well {
        return Err(Failure::new(format!("without a mistake the matrix fails: {said}")));
    }
    Ok(Reached::read(&said, bound, None, Model::Cell))
}

/// Which mistakes these pairs of calls come by.
pub(crate) fn reached_by_stops(tree: &Tree, stops: &[Measured]) -> Result<Reached, Failure> {
    let (ended, said) = explore_stops(tree, stops, &[], 3600)?;
    if ended != Ended::Well {
        return Err(Failure::new(format!("without a mistake the stopped models fail: {said}")));
    }
    Ok(Reached::read(&said, 0, None, Model::Stop))
}

/// Which mistakes a race comes by.
pub(crate) fn reached_by_race(tree: &Tree, (name, _): &Measured, bound: usize) -> Result<Reached, Failure> {
    let arguments = ["--exact", name, "--test-threads", "1", "--nocapture"];
    let bound_text = format!("{bound}-");
    let (_, said) = run(tree, &tree.races()?, &arguments, 3600, &[("RACE_BOUND", bound_text.as_str())])?;
    Ok(Reached::read(&said, bound, Some(&Model::Race(name.clone())), Model::Race))
}

/// A model, and how many executions it has without a mistake.
pub(crate) type Measured = (String, usize);

/// All cells that have something to explore, and no more executions than `most`.
pub(crate) fn all_cells(tree: &Tree, bound: usize, most: usize, jobs: usize) -> Result<Vec<Measured>, Failure> {
    let json = tree.scratch("cells.json");
    let (bound, most, jobs, file) =
        (bound.to_string(), most.saturating_add(1).to_string(), jobs.to_string(), json.to_string_lossy());
    let arguments = ["--only-bound", &bound, "--give-up", &most, "--jobs", &jobs, "--json", &file];
    let (ended, said) = run(tree, &tree.matrix(), &arguments, 3600, &[])?;
    if ended != Ended::Well {
        return Err(Failure::new(format!("without a mistake the matrix fails: {said}")));
    }
    let text = fs::read_to_string(&json).map_err(|error| Failure::file(&json, &error))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", json.display())))?;
    let cells = value["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sized = |cell: &serde_json::Value| {
        let ops: Vec<&str> = cell["ops"].as_array()?.iter().filter_map(serde_json::Value::as_str).collect();
        let executions = usize::try_from(cell["executions"].as_u64()?).ok()?;
        Some((format!("{}: {}", cell["start"].as_str()?, ops.join(" / ")), executions))
    };
    Ok(cells.iter().filter_map(sized).collect())
}

/// All pairs of calls of which one stops that have something to explore, or those of these names, as the program
/// names them. A call that changes nothing is never stopped.
pub(crate) fn all_stops(tree: &Tree, names: &[&str], jobs: usize) -> Result<Vec<(Measured, String)>, Failure> {
    let (json, list) = (tree.scratch("stops.json"), tree.scratch("stops.txt"));
    fs::write(&list, names.join("\n")).map_err(|error| Failure::file(&list, &error))?;
    let (jobs, file, list) = (jobs.to_string(), json.to_string_lossy(), list.to_string_lossy());
    let arguments = ["--jobs", &jobs, "--json", &file, "--models", &list];
    let arguments = if names.is_empty() { &arguments[..4] } else { &arguments[..] };
    let (ended, said) = run(tree, &tree.stopped(), arguments, 3600, &[])?;
    if ended != Ended::Well {
        return Err(Failure::new(format!("without a mistake the stopped models fail: {said}")));
    }
    let text = fs::read_to_string(&json).map_err(|error| Failure::file(&json, &error))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", json.display())))?;
    let stops = value["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sized = |stop: &serde_json::Value| {
        (stop["stops"].as_u64()? > 0).then_some(())?;
        let calls = format!("{} beside a stopped {}", stop["other"].as_str()?, stop["stopped"].as_str()?);
        let executions = usize::try_from(stop["executions"].as_u64()?).ok()?;
        Some(((format!("{}: {calls}", stop["start"].as_str()?), executions), calls))
    };
    Ok(stops.iter().filter_map(sized).collect())
}

/// The names of all races.
pub(crate) fn race_names(tree: &Tree) -> Result<Vec<String>, Failure> {
    let (_, said) = run(tree, &tree.races()?, &["--list", "--format", "terse"], 60, &[])?;
    Ok(said.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect())
}

/// All races that have no more executions than `most`.
pub(crate) fn races(tree: &Tree, bound: usize, most: usize) -> Result<Vec<Measured>, Failure> {
    let program = tree.races()?;
    let mut all = Vec::new();
    for name in race_names(tree)? {
        let arguments = ["--exact", &name, "--test-threads", "1", "--nocapture"];
        let (bound, limit) = (format!("{bound}-"), (most + 1).to_string());
        let variables = [("RACE_BOUND", bound.as_str()), ("RACE_LIMIT", limit.as_str())];
        let (ended, said) = run(tree, &program, &arguments, 3600, &variables)?;
        // Some explore more than once.
        let explored =
            said.split(" executions, ").filter_map(|before| before.rsplit(' ').next()?.parse::<usize>().ok());
        let executions: usize = explored.sum();
        match (ended, executions) {
            (Ended::Well, _) if said.contains(": gave up") || executions > most => {}
            (Ended::Well, 0) => all.push((name, 1000)),
            (Ended::Well, executions) => all.push((name, executions)),
            // It fails at its own bound only.
            _ if said.contains(MUST_FAIL) => {}
            _ => return Err(Failure::new(format!("without a mistake race {name} fails: {said}"))),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Model, Reached};

    #[test]
    fn an_execution_is_told_of_when_the_next_begins() {
        let said = "exploring A\nreached 0 =\nreached 1 = 3\nreached 2 = 3 5\nexploring B\nreached 1\nreached 3 = 9\n";
        let reached = Reached::read(said, 1, None, Model::Cell);
        let by = |name: &str, mistake| reached.by(&Model::Cell(name.to_string()), 1, mistake);
        assert!(by("A", 3) && by("A", 5) && !by("A", 9), "{reached:?}");
        assert!(!by("B", 3) && !by("B", 5) && by("B", 9), "{reached:?}");
        assert!(by("C", 7), "nothing is known of it");
    }
}
