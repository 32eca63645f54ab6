//! Whether each model notices something: one that does not is one that cannot fail.
//!
//! Each mistake that some model has noticed is shown to the small models that have noticed none, all at once, since that they
//! begin costs more than what they explore. What is left then, and the races, is shown the mistakes that it comes by one by
//! one. What spoils the mere set-up of a model, or its end, shows nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::failure::Failure;
use crate::model::{self, Measured, Model, Reached, Verdict};
use crate::record::{Outcome, Run};
use crate::run::{Work, scattered};
use crate::tree::Tree;

/// For each state some models that do little besides setting it up, and ending it: those with the fewest executions, no two of
/// which have an operation in common. What most of them notice, the others from that state may notice by their set-up, or by
/// their end.
struct SetUps {
    tellers: HashMap<String, Vec<Model>>,
}

/// What the models have in common that are set up alike.
fn set_up(model: &Model) -> String {
    let state = |name: &str| name.split_once(": ").unwrap_or_default().0.to_string();
    match model {
        Model::Cell(name) => state(name),
        // Some have an auxiliary VMO.
        Model::Stop(name) => {
            let has_aux = operations(name).any(|call| call.starts_with("Aux") || call == "SupplyPages");
            format!("{}, {}", state(name), if has_aux { "aux" } else { "no aux" })
        }
        // At the least, a VMO.
        Model::Race(_) | Model::Test(_) => "Absent".to_string(),
    }
}

/// The operations of a cell, or the calls of a pair of which one stops.
fn operations(name: &str) -> impl Iterator<Item = &str> {
    let both = name.split_once(": ").unwrap_or_default().1;
    both.split(" / ").flat_map(|part| part.split(" beside a stopped "))
}

impl SetUps {
    /// Tellers of a state.
    const TELLERS: usize = 6;

    fn new(cells: &[Measured], stops: &[Measured]) -> Self {
        let mut tellers: HashMap<String, Vec<Model>> = HashMap::new();
        for (all, model) in [(cells, Model::Cell as fn(String) -> Model), (stops, Model::Stop)] {
            let mut sorted: Vec<&Measured> = all.iter().collect();
            sorted.sort_by_key(|(name, executions)| (*executions, name));
            for (name, _) in sorted {
                let model = model(name.clone());
                let tellers = tellers.entry(set_up(&model)).or_default();
                if tellers.len() < Self::TELLERS && tellers.iter().all(|teller| have_nothing_in_common(teller, &model))
                {
                    tellers.push(model);
                }
            }
        }
        Self { tellers }
    }

    fn of(&self, model: &Model) -> impl Iterator<Item = &Model> {
        let tellers = self.tellers.get(&set_up(model)).map(Vec::as_slice).unwrap_or_default();
        tellers.iter().filter(|teller| have_nothing_in_common(teller, model))
    }

    /// Whether a mistake that these models notice spoils the set-up of this one, as half of its tellers or more say. So it does where
    /// there are none.
    fn is_spoilt(&self, model: &Model, noticing: &HashSet<Model>) -> bool {
        let (all, spoilt) = self
            .of(model)
            .fold((0, 0), |(all, spoilt), teller| (all + 1, spoilt + usize::from(noticing.contains(teller))));
        spoilt * 2 >= all
    }
}

fn have_nothing_in_common(one: &Model, other: &Model) -> bool {
    let (Model::Cell(one) | Model::Stop(one), Model::Cell(other) | Model::Stop(other)) = (one, other) else {
        return true;
    };
    operations(one).all(|operation| operations(other).all(|its| operation != its))
}

/// Shows each model the mistakes that it comes by, until it notices one that does not spoil its set-up.
pub(crate) fn each(work: &Work<'_>, trees: &[Tree]) -> Result<(), Failure> {
    let models = work.plan.models();
    count_those_made_alone(work)?;
    let silent = models.keys().filter(|model| is_silent(work, model)).count();
    eprintln!("{silent} of {} models have not been seen to notice anything", models.len());
    if silent == 0 {
        return Ok(());
    }
    let asking = Asking::new(work, trees, models)?;
    let spoilt = asking.all_at_once()?;
    asking.one_by_one(&spoilt)
}

fn is_silent(work: &Work<'_>, model: &Model) -> bool {
    work.record.noticed_by(model).is_none()
}

/// Mistakes that are made alone are not shown again: what has noticed them counts. What fails in a later execution is no set-up.
fn count_those_made_alone(work: &Work<'_>) -> Result<(), Failure> {
    for (mutant, _) in work.mutants.iter().filter(|(mutant, _)| mutant.choice.is_none()) {
        if let Some(Run { outcome: Outcome::Killed(kill), .. }) = work.record.known(&mutant.id)
            && kill.execution > Some(1)
        {
            work.record.add_asked(mutant, [&kill.by].into_iter())?;
        }
    }
    Ok(())
}

/// For each mistake that was shown to all at once, the tellers that noticed it. It is not known of one that hangs.
type Told = HashMap<u32, HashSet<Model>>;

struct Asking<'a> {
    work: &'a Work<'a>,
    trees: &'a [Tree],
    models: BTreeMap<Model, Vec<(usize, usize)>>,
    /// The mistakes that are built together.
    made: Vec<u32>,
    /// By what the models come to their first bound. So they do to the others.
    reached: Reached,
    set_ups: SetUps,
}

impl<'a> Asking<'a> {
    fn new(
        work: &'a Work<'a>,
        trees: &'a [Tree],
        models: BTreeMap<Model, Vec<(usize, usize)>>,
    ) -> Result<Self, Failure> {
        let numbers: Vec<u32> = (1..).take(work.mutants.len()).filter(|number| work.is_a_choice(*number)).collect();
        let made = work.build(&trees[0], &numbers)?.made;
        if !trees[0].build_stopped()? || !trees[0].build_races()? {
            return Err(Failure::new(format!("the models do not build:\n{}", trees[0].build_log())));
        }
        let reached = work.reached(trees, 1, true)?;
        let set_ups = SetUps::new(&work.plan.rounds[0].cells, &work.plan.stops);
        Ok(Self { work, trees, models, made, reached, set_ups })
    }

    fn is_silent(&self, model: &Model) -> bool {
        is_silent(self.work, model)
    }

    fn silent(&self) -> impl Iterator<Item = &Model> {
        self.models.keys().filter(|model| self.is_silent(model))
    }

    /// Shows a mistake to the small models that come by it, of those that are asked. Returns those that notice it, and
    /// whether all came to their end.
    fn show(
        &self,
        tree: &Tree,
        number: u32,
        is_asked: &dyn Fn(&Model) -> bool,
    ) -> Result<(HashSet<Model>, bool), Failure> {
        let those = |all: &[Measured], model: fn(String) -> Model, bound| {
            let comes_by_it = |(name, _): &&Measured| {
                let model = model(name.clone());
                is_asked(&model) && self.reached.by(&model, bound, number)
            };
            all.iter().filter(comes_by_it).cloned().collect::<Vec<Measured>>()
        };
        let plan = self.work.plan;
        let first = &plan.rounds[0];
        let cells = those(&first.cells, Model::Cell, first.bound);
        let (mut all, cells_end) = model::noticing_cells(tree, &cells, first.bound)?;
        let (stops, stops_end) = model::noticing_stops(tree, &those(&plan.stops, Model::Stop, 0))?;
        all.extend(stops);
        Ok((all, cells_end && stops_end))
    }

    /// Each mistake to all of the small models that have noticed none.
    fn all_at_once(&self) -> Result<Told, Failure> {
        let telling: HashSet<Model> = self.silent().flat_map(|model| self.set_ups.of(model)).cloned().collect();
        let all_told: Mutex<Told> = Mutex::default();
        let done = AtomicUsize::new(0);
        let mut order = self.made.clone();
        order.sort_by_cached_key(|number| scattered(&self.work.mutant(*number).0.id));
        Work::share(self.trees.len(), &order, |job, number| {
            let tree = self.trees[0].choosing(number, job)?;
            let mutant = self.work.mutant(number).0;
            let (told, come_to_an_end) = self.show(&tree, number, &|model| telling.contains(model))?;
            let mut noticed = 0;
            // Where the set-up hangs it is not known whom it spoils.
            if come_to_an_end {
                let others = |model: &Model| self.is_silent(model) && !telling.contains(model);
                let (others, _) = self.show(&tree, number, &others)?;
                let all = told.iter().filter(|model| self.is_silent(model)).chain(&others);
                let beyond = all.filter(|model| !self.set_ups.is_spoilt(model, &told));
                noticed = self.work.record.add_asked(mutant, beyond)?;
                all_told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(number, told);
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            eprintln!("{done}/{}: {} is noticed by {noticed}", order.len(), mutant.id);
            Ok(())
        })?;
        Ok(all_told.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// To each model that is left, the mistakes that it comes by, to each of its bounds.
    fn one_by_one(&self, told: &Told) -> Result<(), Failure> {
        let everywhere = self.everywhere();
        let left: Vec<&Model> = self.silent().collect();
        let numbers: Vec<u32> = (0..).take(left.len()).collect();
        let done = AtomicUsize::new(0);
        Work::share(self.trees.len(), &numbers, |job, nth| {
            let model = left[nth as usize];
            let likely = self.likely(model, told, &everywhere);
            let bounds = &self.models[model];
            for (to, number) in bounds.iter().flat_map(|to| likely.iter().map(move |number| (*to, *number))) {
                let Verdict::Killed(kill) = model::one(&self.trees[0].choosing(number, job)?, model, to)? else {
                    continue;
                };
                let mutant = self.work.mutant(number).0;
                // A race's set-up is its own, and may make the call that refuses.
                let may_be_set_up = matches!(model, Model::Race(_)) && mutant.is_of_a_call();
                if !may_be_set_up || kill.execution > Some(1) {
                    self.work.record.add_asked(mutant, [model].into_iter())?;
                    break;
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let what = self.work.record.noticed_by(model);
            eprintln!("{done}/{}: {model} notices {}", left.len(), what.as_deref().unwrap_or("nothing"));
            Ok(())
        })
    }

    /// The mistakes that most cells come by. They are in making and dropping a VMO, and say least of a race.
    fn everywhere(&self) -> HashSet<u32> {
        let first = &self.work.plan.rounds[0];
        let come_by = |number: u32| {
            let cells = first.cells.iter().map(|(name, _)| Model::Cell(name.clone()));
            cells.filter(|cell| self.reached.by(cell, first.bound, number)).count()
        };
        self.made.iter().copied().filter(|number| come_by(*number) * 2 > first.cells.len()).collect()
    }

    /// The mistakes that a model comes by, and that do not spoil its set-up; the one that it noticed first of all, if so, in front.
    fn likely(&self, model: &Model, told: &Told, everywhere: &HashSet<u32>) -> Vec<u32> {
        let bound = self.models[model].first().map_or(0, |(bound, _)| *bound);
        let spoils = |number: u32| told.get(&number).is_none_or(|told| self.set_ups.is_spoilt(model, told));
        let comes_by_it = |number: &u32| !spoils(*number) && self.reached.by(model, bound, *number);
        let mut likely: Vec<u32> = self.made.iter().copied().filter(comes_by_it).collect();
        likely.sort_by_cached_key(|number| {
            let id = &self.work.mutant(*number).0.id;
            let noticed = matches!(
                self.work.record.known(id),
                Some(Run { outcome: Outcome::Killed(kill), .. }) if kill.by == *model
            );
            (!noticed, everywhere.contains(number), scattered(id))
        });
        likely
    }
}
