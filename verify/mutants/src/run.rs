//! Builds mutants and shows them to the models, several at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::failure::Failure;
use crate::hash;
use crate::make::Mutant;
use crate::model::{self, Measured, Model, Reached, Verdict};
use crate::record::{Outcome, Record, Run, Versions};
use crate::source::Source;
use crate::together::{self, Merged, TO_TELL};
use crate::tree::{Fault, Tree};

/// What takes part in each round: to which preemption bound, and up to how many executions of a cell, and of a race,
/// without a mistake. So a mistake that shows early is soon noticed, and each model takes part as far as it is quick.
const ROUNDS: [(usize, usize, usize); 3] = [(1, usize::MAX - 1, 30_000), (2, 5_000, 30_000), (3, 1_000, 500_000)];
/// A pair of calls of which one stops takes part if it has no more executions.
const STOP_MOST: usize = 100;
/// Fewer mutants than these are each built alone.
const TOGETHER: usize = 4;
/// More executions than a model has that takes part, for one of which no more is known.
const USUAL: usize = 100_000;
/// So many models are tried first, because they noticed other mistakes in the same place.
const LIKELY: usize = 12;

/// The models, with the executions that each has without a mistake.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// To the bounds of [`ROUNDS`].
    pub(crate) rounds: Vec<Round>,
    /// Pairs of calls of which one stops: each from one state.
    pub(crate) stops: Vec<Measured>,
}

/// Models that are explored to one bound.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) bound: usize,
    pub(crate) cells: Vec<Measured>,
    races: Vec<Measured>,
}

impl Round {
    /// Has each model run once, without a mistake.
    fn measure(tree: &Tree, (bound, cell, race): (usize, usize, usize), jobs: usize) -> Result<Self, Failure> {
        let (cells, races) = (model::all_cells(tree, bound, cell, jobs)?, model::races(tree, bound, race)?);
        Ok(Self { bound, cells, races })
    }

    fn models(&self) -> impl Iterator<Item = &Measured> {
        self.cells.iter().chain(&self.races)
    }

    /// Leaves out what an earlier round explores as far.
    fn leave_out(&mut self, earlier: &Self) {
        let explored: HashMap<&str, usize> =
            earlier.models().map(|(name, executions)| (name.as_str(), *executions)).collect();
        let goes_further =
            |(name, executions): &Measured| explored.get(name.as_str()).is_none_or(|before| executions > before);
        self.cells.retain(goes_further);
        self.races.retain(goes_further);
    }
}

impl Plan {
    /// Has every model run once without a mistake, unless that is on record.
    pub(crate) fn new(tree: &Tree, file: &Path, versions: &Versions, jobs: usize) -> Result<Self, Failure> {
        let (version, last) = (Self::version(versions), Self::last(file));
        if let Some(plan) = Self::read(&last, &version) {
            return Ok(plan);
        }
        // Which pairs of calls there are takes a minute to find, and only the models say it.
        let calls = json!(versions.calls);
        let before = if last["calls"] == calls { last["stops"].as_array().cloned() } else { None };
        let before: Vec<&str> = before.iter().flatten().filter_map(|stop| stop[0].as_str()).collect();
        eprintln!("running every model without a mistake");
        if !tree.build_races()? {
            return Err(Failure::new(format!("the races do not build:\n{}", tree.build_log())));
        }
        let mut rounds: Vec<Round> = Vec::new();
        for limits in ROUNDS {
            let mut round = Round::measure(tree, limits, jobs)?;
            for earlier in &rounds {
                round.leave_out(earlier);
            }
            // Neighbours in the matrix are alike. In this order each stretch is a sample of all.
            round.cells.sort_by_cached_key(|(name, _)| scattered(name));
            round.races.sort_by_key(|(_, executions)| *executions); // what is noticed at all, a short one may
            rounds.push(round);
        }
        let plan = Self { rounds, stops: Self::stops(tree, &before, jobs)? };
        let rounds: Vec<_> = plan.rounds.iter().map(|round| json!([round.bound, round.cells, round.races])).collect();
        let value = json!({ "version": version, "calls": calls, "rounds": rounds, "stops": plan.stops });
        fs::write(file, value.to_string()).map_err(|error| Failure::file(file, &error))?;
        Ok(plan)
    }

    fn read(value: &serde_json::Value, version: &serde_json::Value) -> Option<Self> {
        let models = |list: &serde_json::Value| -> Option<Vec<Measured>> {
            let all = list.as_array()?.iter();
            all.map(|one| Some((one[0].as_str()?.to_string(), usize::try_from(one[1].as_u64()?).ok()?))).collect()
        };
        let round = |round: &serde_json::Value| {
            let bound = usize::try_from(round[0].as_u64()?).ok()?;
            Some(Round { bound, cells: models(&round[1])?, races: models(&round[2])? })
        };
        (value["version"] == *version).then_some(())?;
        let rounds = value["rounds"].as_array()?.iter().map(round).collect::<Option<_>>()?;
        Some(Self { rounds, stops: models(&value["stops"])? })
    }

    /// Of each pair of calls, one state from which they stop: not the same for all, and one that leaves something to
    /// explore. `before`: those that were chosen last time, if they need not be chosen anew.
    fn stops(tree: &Tree, before: &[&str], jobs: usize) -> Result<Vec<Measured>, Failure> {
        if !tree.build_stopped()? {
            return Err(Failure::new(format!("the stopped models do not build:\n{}", tree.build_log())));
        }
        let mut of_calls: HashMap<String, Measured> = HashMap::new();
        for (stop, calls) in model::all_stops(tree, before, jobs)? {
            if stop.1 > STOP_MOST {
                continue;
            }
            let kept = of_calls.entry(calls).or_insert_with(|| stop.clone());
            if scattered(&stop.0) < scattered(&kept.0) {
                *kept = stop;
            }
        }
        let mut stops: Vec<Measured> = of_calls.into_values().collect();
        stops.sort_by_cached_key(|(name, _)| scattered(name));
        Ok(stops)
    }

    fn version(versions: &Versions) -> serde_json::Value {
        json!([versions.core, versions.models, ROUNDS])
    }

    /// What is on record of this version.
    pub(crate) fn recorded(file: &Path, versions: &Versions) -> Option<Self> {
        Self::read(&Self::last(file), &Self::version(versions))
    }

    /// What is in the file, of whatever version.
    fn last(file: &Path) -> serde_json::Value {
        fs::read_to_string(file).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Every model that takes part, with the bounds to which it does and its executions there.
    pub(crate) fn models(&self) -> BTreeMap<Model, Vec<(usize, usize)>> {
        let mut all: BTreeMap<Model, Vec<(usize, usize)>> = BTreeMap::new();
        for Round { bound, cells, races } in &self.rounds {
            let cells = cells.iter().map(|(name, usual)| (Model::Cell(name.clone()), *usual));
            let races = races.iter().map(|(name, usual)| (Model::Race(name.clone()), *usual));
            for (model, usual) in cells.chain(races) {
                all.entry(model).or_default().push((*bound, usual));
            }
        }
        all.extend(self.stops.iter().map(|(name, usual)| (Model::Stop(name.clone()), vec![(0, *usual)])));
        all
    }

    /// How many models there are in each round, and how many executions they have.
    pub(crate) fn describe(&self) -> String {
        let executions = |models: &mut dyn Iterator<Item = &Measured>| models.map(|(_, all)| all).sum::<usize>();
        let mut rounds = self.rounds.iter().map(|round| {
            let Round { bound, cells, races } = round;
            let all = executions(&mut round.models());
            format!("{} cells and {} races to bound {bound}, {all} executions", cells.len(), races.len())
        });
        let stops = executions(&mut self.stops.iter());
        let first = rounds.next().unwrap_or_default();
        let others: Vec<String> = rounds.map(|round| format!("; then {round}")).collect();
        format!("first {first}; then {} stops, {stops} executions{}", self.stops.len(), others.concat())
    }

    /// How many executions a model has without a mistake.
    fn usual(&self, name: &str, bound: usize) -> usize {
        let mut models = self.rounds.iter().filter(|round| round.bound == bound).flat_map(Round::models);
        models.find(|(found, _)| found == name).map_or(USUAL, |(_, executions)| *executions)
    }
}

/// A number without a pattern, the same in every run.
pub(crate) fn scattered(name: &str) -> u64 {
    hash::with(hash::NOTHING, name.as_bytes())
}

/// Shows one mutant to the models, in the order in which they are likely to notice it.
struct Trial<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    /// What is known of which models come by the mistake.
    reached: Option<&'a Reached>,
    quick: bool,
    timed_out: Option<Model>,
}

impl Trial<'_> {
    /// The outcome, once it is clear.
    fn heard(&mut self, verdict: Verdict) -> Option<Outcome> {
        match verdict {
            Verdict::Passed => None,
            Verdict::Killed(kill) => Some(Outcome::Killed(kill)),
            Verdict::TimedOut(model) => {
                self.timed_out.get_or_insert(model);
                None
            }
        }
    }

    /// Those of the models that come by the mistake.
    fn that_reach(&self, models: &[Measured], bound: usize, model: fn(String) -> Model) -> Vec<Measured> {
        let reaches = |name: &str| match (self.reached, self.tree.chosen) {
            (Some(reached), Some(mistake)) => reached.by(&model(name.to_string()), bound, mistake),
            _ => true,
        };
        models.iter().filter(|(name, _)| reaches(name)).cloned().collect()
    }

    fn round(&mut self, round: &Round) -> Result<Option<Outcome>, Failure> {
        let bound = round.bound;
        let cells = self.that_reach(&round.cells, bound, Model::Cell);
        let races = self.that_reach(&round.races, bound, Model::Race);
        let verdict = model::cells(self.tree, &cells, bound)?;
        if let Some(outcome) = self.heard(verdict) {
            return Ok(Some(outcome));
        }
        if !races.is_empty() && !self.tree.build_races()? {
            return Err(Failure::new(format!("the races do not build:\n{}", self.tree.build_log())));
        }
        for race in &races {
            let verdict = model::race(self.tree, race, bound)?;
            if let Some(outcome) = self.heard(verdict) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// As [`round`](Self::round), of pairs of calls of which one stops.
    fn stops(&mut self, stops: &[Measured]) -> Result<Option<Outcome>, Failure> {
        let stops = self.that_reach(stops, 0, Model::Stop);
        if stops.is_empty() || !self.tree.build_stopped()? {
            return Ok(None);
        }
        let verdict = model::stops(self.tree, &stops)?;
        Ok(self.heard(verdict))
    }

    /// Runs the behaviour tests, and those of the core's own modules.
    fn tests(&mut self) -> Result<Option<Outcome>, Failure> {
        if !self.tree.build_tests()? {
            return Ok(None);
        }
        for program in [self.tree.unit_tests()?, self.tree.tests()?, self.tree.allocations()?] {
            let verdict = model::tests(self.tree, &program)?;
            if let Some(outcome) = self.heard(verdict) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn likely(&mut self, likely: &[(Model, usize)]) -> Result<Option<Outcome>, Failure> {
        for (bound, ..) in ROUNDS {
            let mut round = Round { bound, cells: Vec::new(), races: Vec::new() };
            for (model, _) in likely.iter().filter(|(_, at)| *at == bound) {
                match model {
                    Model::Cell(name) => round.cells.push((name.clone(), self.plan.usual(name, bound))),
                    Model::Race(name) => round.races.push((name.clone(), self.plan.usual(name, bound))),
                    Model::Stop(_) | Model::Test(_) => {}
                }
            }
            if let Some(outcome) = self.round(&round)? {
                return Ok(Some(outcome));
            }
        }
        let stops = likely.iter().filter_map(|(model, _)| match model {
            Model::Stop(name) => Some((name.clone(), STOP_MOST)),
            _ => None,
        });
        self.stops(&stops.collect::<Vec<_>>())
    }

    /// An accepted mutant is shown to the first round only: that it is none need not be found anew each
    /// time, but a model that notices it all the same is news.
    fn run(mut self, record: &Record, mutant: &Mutant, accepted: bool) -> Result<Outcome, Failure> {
        let plan = self.plan;
        if mutant.is_for_the_stopped() {
            return Ok(self.stops(&plan.stops)?.unwrap_or(Outcome::Survived));
        }
        let before = record.noticed_before(mutant);
        if matches!(before, Some((Model::Test(_), _)))
            && let Some(outcome) = self.tests()?
        {
            return Ok(outcome);
        }
        if let Some(outcome) = self.likely(before.as_slice())? {
            return Ok(outcome);
        }
        let likely = record.likely(mutant, LIKELY);
        if let Some(outcome) = self.likely(&likely)? {
            return Ok(outcome);
        }
        let (first, others) = plan.rounds.split_first().ok_or_else(|| Failure::new("no models".to_string()))?;
        if let Some(outcome) = self.round(first)? {
            return Ok(outcome);
        }
        // One thread is enough to notice many a statement that is missing, but no order.
        if !accepted
            && !mutant.is_an_order()
            && let Some(outcome) = self.tests()?
        {
            return Ok(outcome);
        }
        if self.quick {
            return Ok(Outcome::Open);
        }
        // A thread that stops is a thread that is preempted, which the cells have too: what it shows besides is who
        // waits for whom, and no order.
        if !accepted
            && !mutant.is_an_order()
            && let Some(outcome) = self.stops(&plan.stops)?
        {
            return Ok(outcome);
        }
        for round in others.iter().filter(|_| !accepted) {
            if let Some(outcome) = self.round(round)? {
                return Ok(outcome);
            }
        }
        Ok(self.timed_out.map_or(Outcome::Survived, Outcome::TimedOut))
    }
}

/// Mutants that were built together.
pub(crate) struct Built {
    pub(crate) made: Vec<u32>,
    /// Those that do not compile beside what is there.
    alone: Vec<u32>,
}

/// What all jobs share.
pub(crate) struct Work<'a> {
    pub(crate) sources: &'a [Source],
    pub(crate) plan: &'a Plan,
    pub(crate) record: &'a Record,
    /// Each with whether it is accepted.
    pub(crate) mutants: &'a [(&'a Mutant, bool)],
    /// Each is shown to a part of the models only.
    pub(crate) quick: bool,
}

/// How far a run is.
struct Tally {
    done: AtomicUsize,
    begun: Instant,
}

impl Work<'_> {
    fn trial<'a>(&'a self, tree: &'a Tree, reached: Option<&'a Reached>) -> Trial<'a> {
        Trial { tree, plan: self.plan, reached, quick: self.quick, timed_out: None }
    }

    /// Runs all mutants, with a job for each tree: as many as go into one build together, then of the others again as
    /// many, and those that are left each in a build of its own.
    pub(crate) fn all(&self, trees: &[Tree]) -> Result<(), Failure> {
        let tally = Tally { done: AtomicUsize::new(0), begun: Instant::now() };
        let numbers = (1..).take(self.mutants.len());
        let (mut left, mut alone): (Vec<u32>, Vec<u32>) = numbers.partition(|number| self.is_a_choice(*number));
        let only_together = |number: &u32| self.mutant(*number).0.is_made_together_only();
        while left.len() >= TOGETHER || left.iter().any(only_together) {
            let built = self.build(&trees[0], &left)?;
            left.retain(|number| !built.made.contains(number) && !built.alone.contains(number));
            alone.extend(built.alone);
            eprintln!("{} in this build, {} in others, {} alone", built.made.len(), left.len(), alone.len());
            let reached = self.reached(trees, if self.quick { 1 } else { ROUNDS.len() }, true)?;
            Self::share(trees.len(), &built.made, |job, number| {
                let (tree, begun) = (trees[0].choosing(number, job)?, Instant::now());
                let (mutant, accepted) = self.mutant(number);
                let outcome = self.trial(&tree, Some(&reached)).run(self.record, mutant, accepted)?;
                self.add(&tally, mutant, &Run { outcome, seconds: begun.elapsed().as_secs_f64() })
            })?;
        }
        for source in self.sources {
            trees[0].write(&source.path, &source.text)?;
        }
        alone.extend(left);
        Self::share(trees.len(), &alone, |job, number| {
            let (mutant, accepted) = self.mutant(number);
            if mutant.is_made_together_only() {
                return self.add(&tally, mutant, &Run { outcome: Outcome::NotCompiled, seconds: 0.0 });
            }
            self.add(&tally, mutant, &self.one(&trees[job], mutant, accepted)?)
        })
    }

    /// The mutant of this number, and whether it is accepted.
    pub(crate) fn mutant(&self, number: u32) -> (&Mutant, bool) {
        self.mutants[number as usize - 1]
    }

    /// Whether it can be made together with others.
    pub(crate) fn is_a_choice(&self, number: u32) -> bool {
        self.mutant(number).0.choice.is_some()
    }

    /// Builds as many of these mutants together as go together.
    pub(crate) fn build(&self, tree: &Tree, numbers: &[u32]) -> Result<Built, Failure> {
        let (mut left, mut alone) = (numbers.to_vec(), Vec::new());
        loop {
            let mutants: Vec<(&Mutant, u32)> = left.iter().map(|number| (self.mutant(*number).0, *number)).collect();
            let merged = together::merge(self.sources, &mutants)?;
            for file in &merged {
                tree.write(&file.path, &file.text)?;
            }
            let faults = match tree.build_all()? {
                None => tree.build_all_tests()?,
                faults => faults,
            };
            let Some(faults) = faults else {
                let mut made: Vec<u32> = merged.iter().flat_map(Merged::numbers).collect();
                made.sort_unstable();
                return Ok(Built { made, alone });
            };
            let of = |fault: &Fault| merged.iter().find(|file| file.path == fault.path)?.at(&fault.at);
            let mut blamed: HashSet<u32> = faults.iter().filter(|fault| fault.is_primary).filter_map(of).collect();
            if blamed.is_empty() {
                blamed = faults.iter().filter_map(of).collect();
            }
            if blamed.is_empty() {
                return Err(Failure::new(format!("the mutants do not build together:\n{}", tree.build_log())));
            }
            left.retain(|number| !blamed.contains(number));
            alone.extend(blamed);
        }
    }

    /// Has the models of so many rounds tell which mistakes they come by, of those that were built together; and those
    /// in which a thread stops.
    pub(crate) fn reached(&self, trees: &[Tree], rounds: usize, stops: bool) -> Result<Reached, Failure> {
        type Tell<'a> = Box<dyn Fn(&Tree) -> Result<Reached, Failure> + Sync + 'a>;
        let plan = self.plan;
        let mut all: Vec<Tell<'_>> = Vec::new();
        if stops {
            all.push(Box::new(|tree| model::reached_by_stops(tree, &plan.stops)));
        }
        for round in plan.rounds.iter().take(rounds) {
            all.push(Box::new(|tree| model::reached_by_cells(tree, &round.cells, round.bound)));
            let races = round.races.iter();
            all.extend(
                races.map(|race| -> Tell<'_> { Box::new(move |tree| model::reached_by_race(tree, race, round.bound)) }),
            );
        }
        let reached: Mutex<Reached> = Mutex::default();
        let numbers: Vec<u32> = (0..).take(all.len()).collect();
        Self::share(trees.len(), &numbers, |job, number| {
            let told = all[number as usize](&trees[0].choosing(TO_TELL, job)?)?;
            reached.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(told);
            Ok(())
        })?;
        Ok(reached.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A mutant in a build of its own.
    fn one(&self, tree: &Tree, mutant: &Mutant, accepted: bool) -> Result<Run, Failure> {
        let begun = Instant::now();
        let source = self.sources.iter().find(|source| source.path == mutant.file);
        let text = &source.ok_or_else(|| Failure::new(format!("no file {}", mutant.file)))?.text;
        tree.write(&mutant.file, &mutant.apply(text))?;
        let built = tree.build();
        let outcome =
            if built? { self.trial(tree, None).run(self.record, mutant, accepted) } else { Ok(Outcome::NotCompiled) };
        tree.write(&mutant.file, text)?;
        Ok(Run { outcome: outcome?, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Does something with each of these, in so many jobs.
    pub(crate) fn share(
        jobs: usize,
        numbers: &[u32],
        each: impl Fn(usize, u32) -> Result<(), Failure> + Sync,
    ) -> Result<(), Failure> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure: Mutex<Option<Failure>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for job in 0..jobs {
                let (next, stop, failure, each) = (&next, &stop, &failure, &each);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                        if let Err(error) = each(job, *number) {
                            stop.store(true, Ordering::Relaxed);
                            failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            }
        });
        let failure = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }

    fn add(&self, tally: &Tally, mutant: &Mutant, run: &Run) -> Result<(), Failure> {
        self.record.add(mutant, run)?;
        self.say(mutant, run, tally.done.fetch_add(1, Ordering::Relaxed) + 1, tally.begun);
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)] // some hundred mutants
    fn say(&self, mutant: &Mutant, run: &Run, done: usize, begun: Instant) {
        let all = self.mutants.len();
        let left = begun.elapsed().as_secs_f64() / done as f64 * (all - done) as f64 / 60.0;
        let how = match &run.outcome {
            Outcome::Killed(kill) => match kill.execution {
                Some(execution) => format!("killed by {} in execution {execution}", kill.by),
                None => format!("killed by {}", kill.by),
            },
            Outcome::TimedOut(model) => format!("timed out in {model}"),
            other => other.name().to_string(),
        };
        eprintln!("{done}/{all}, {left:.0} min left: {}: {how}, {:.1} s", mutant.id, run.seconds);
    }
}
