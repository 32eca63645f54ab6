//! What is known already: one line of JSON for each mutant that was run, in one file that only grows.
//!
//! A line holds for the core that it was made from. That a mutant survived holds for the models
//! besides. Lines of other cores still tell which models noticed mistakes in which functions.
//!
//! What noticed each mutant in the last whole run is kept beside the list of those that are none, in a file that travels with
//! the source: it tells what to try first on a machine that has no record yet, and nothing else.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::make::Mutant;
use crate::model::{Kill, Model};

/// What became of a mutant.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Killed(Kill),
    Survived,
    NotCompiled,
    /// No model noticed it, and this one did not end.
    TimedOut(Model),
    /// No model noticed it of those that a quick run has.
    Open,
}

impl Outcome {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Killed(_) => "killed",
            Self::Survived => "survived",
            Self::NotCompiled => "not compiled",
            Self::TimedOut(_) => "timed out",
            Self::Open => "open",
        }
    }
}

/// One mutant that was run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    /// Building and running.
    pub(crate) seconds: f64,
}

impl Run {
    /// In the record, and in the report.
    pub(crate) fn json(&self, mutant: &Mutant) -> Value {
        let mut value = json!({
            "id": mutant.id, "file": mutant.file, "line": mutant.line, "function": mutant.function,
            "kind": mutant.kind, "before": mutant.before, "after": mutant.after,
            "outcome": self.outcome.name(), "seconds": self.seconds,
        });
        match &self.outcome {
            Outcome::Killed(kill) => {
                value["by"] = kill.by.to_string().into();
                value["bound"] = kill.bound.into();
                value["execution"] = kill.execution.into();
                value["why"] = kill.why.as_str().into();
            }
            Outcome::TimedOut(model) => value["by"] = model.to_string().into(),
            Outcome::Survived | Outcome::NotCompiled | Outcome::Open => {}
        }
        value
    }

    fn parse(value: &Value) -> Option<Self> {
        let by = || Model::parse(value["by"].as_str()?);
        let outcome = match value["outcome"].as_str()? {
            "killed" => Outcome::Killed(Kill {
                by: by()?,
                bound: usize::try_from(value["bound"].as_u64()?).ok()?,
                execution: value["execution"].as_u64(),
                why: value["why"].as_str().unwrap_or_default().to_string(),
            }),
            "survived" => Outcome::Survived,
            "not compiled" => Outcome::NotCompiled,
            "open" => Outcome::Open,
            "timed out" => Outcome::TimedOut(by()?),
            _ => return None,
        };
        Some(Self { outcome, seconds: value["seconds"].as_f64()? })
    }
}

/// Which version of what a record is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Versions {
    pub(crate) core: String,
    pub(crate) models: String,
    /// Of what makes the models of calls, apart from the named races.
    pub(crate) calls: String,
}

/// The record.
#[derive(Debug)]
pub(crate) struct Record {
    versions: Versions,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Of these versions.
    known: HashMap<String, Run>,
    /// How often a model has noticed something in a function, and in a file; and which noticed a mutant last,
    /// in whatever version.
    kills: HashMap<String, HashMap<(Model, usize), usize>>,
    last: HashMap<String, (Model, usize)>,
    /// Which models have noticed something in this core when they were asked, and what.
    noticing: HashMap<Model, String>,
}

impl Record {
    /// The record in this file. `noticed`: see [`Self::noticed`].
    pub(crate) fn open(path: &Path, noticed: &Path, versions: Versions) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Failure::file(path, &error))?;
        let mut inner = Inner {
            file,
            known: HashMap::new(),
            kills: HashMap::new(),
            last: HashMap::new(),
            noticing: HashMap::new(),
        };
        for line in fs::read_to_string(noticed).unwrap_or_default().lines() {
            let mut columns = line.split('\t');
            if let (Some(id), Some(Ok(bound)), Some(by)) =
                (columns.next(), columns.next().map(str::parse), columns.next().and_then(Model::parse))
            {
                inner.learn(id, (by, bound));
            }
        }
        for line in text.lines() {
            // A line that was cut off by the end of a run is none.
            let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
            if let (Some(all), Some(id)) = (value["noticing_beyond_set_up"].as_array(), value["id"].as_str()) {
                let of_this_core = value["core"] == versions.core.as_str();
                let models = all.iter().filter(|_| of_this_core).filter_map(|model| Model::parse(model.as_str()?));
                inner.notice(id, models);
                continue;
            }
            let Some(run) = Run::parse(&value) else { continue };
            let Some(id) = value["id"].as_str() else { continue };
            if let Outcome::Killed(kill) = &run.outcome {
                inner.learn(id, (kill.by.clone(), kill.bound));
            }
            let same_models = value["models"] == versions.models.as_str();
            let holds = same_models || matches!(run.outcome, Outcome::Killed(_) | Outcome::NotCompiled);
            if value["core"] == versions.core.as_str() && holds {
                inner.known.insert(id.to_string(), run);
            }
        }
        Ok(Self { versions, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is known of a mutant.
    pub(crate) fn known(&self, id: &str) -> Option<Run> {
        self.lock().known.get(id).cloned()
    }

    pub(crate) fn add(&self, mutant: &Mutant, run: &Run) -> Result<(), Failure> {
        let mut inner = self.lock();
        if let Outcome::Killed(kill) = &run.outcome {
            inner.learn(&mutant.id, (kill.by.clone(), kill.bound));
        }
        inner.known.insert(mutant.id.clone(), run.clone());
        inner.write(&self.versions, run.json(mutant))
    }

    /// These models were asked for what they notice, and have noticed this; returns how many. Of the mutant that is no news, and
    /// says nothing of who is likely to notice it first.
    pub(crate) fn add_asked<'a>(
        &self,
        mutant: &Mutant,
        models: impl Iterator<Item = &'a Model>,
    ) -> Result<usize, Failure> {
        let models: Vec<&Model> = models.collect();
        let mut inner = self.lock();
        inner.notice(&mutant.id, models.iter().copied().cloned());
        let names: Vec<String> = models.iter().map(ToString::to_string).collect();
        inner.write(&self.versions, json!({ "id": mutant.id, "noticing_beyond_set_up": names }))?;
        Ok(names.len())
    }

    /// The model that noticed this very mutant in another version, alone: it will again, as a rule.
    pub(crate) fn noticed_before(&self, mutant: &Mutant) -> Option<(Model, usize)> {
        self.lock().last.get(&mutant.id).cloned()
    }

    /// A line for each of these mutants of this core that a model has noticed: its name, the bound, the model.
    pub(crate) fn noticed<'a>(&self, mutants: impl IntoIterator<Item = &'a Mutant>) -> String {
        let inner = self.lock();
        let mut lines: Vec<String> = Vec::new();
        for mutant in mutants {
            if let Some(Run { outcome: Outcome::Killed(kill), .. }) = inner.known.get(&mutant.id) {
                lines.push(format!("{}\t{}\t{}\n", mutant.id, kill.bound, kill.by));
            }
        }
        lines.sort();
        lines.concat()
    }

    /// A mistake in this core that the model has noticed when it was asked.
    pub(crate) fn noticed_by(&self, model: &Model) -> Option<String> {
        self.lock().noticing.get(model).cloned()
    }

    /// The models that have noticed most in the same function, then those in the same file; with the
    /// bounds at which they did.
    pub(crate) fn likely(&self, mutant: &Mutant, most: usize) -> Vec<(Model, usize)> {
        let inner = self.lock();
        let mut scores: HashMap<&(Model, usize), usize> = HashMap::new();
        for (scope, weight) in [(format!("{}/{}", mutant.file, mutant.function), 8), (mutant.file.clone(), 1)] {
            for (model, times) in inner.kills.get(&scope).into_iter().flatten() {
                *scores.entry(model).or_default() += times * weight;
            }
        }
        let mut all: Vec<_> = scores.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        all.into_iter().take(most).map(|(model, _)| model.clone()).collect()
    }
}

impl Inner {
    fn write(&mut self, versions: &Versions, mut value: Value) -> Result<(), Failure> {
        value["core"] = versions.core.as_str().into();
        value["models"] = versions.models.as_str().into();
        writeln!(self.file, "{value}").map_err(|error| Failure::new(format!("cannot write the record: {error}")))
    }

    fn notice(&mut self, id: &str, models: impl Iterator<Item = Model>) {
        for model in models {
            self.noticing.entry(model).or_insert_with(|| id.to_string());
        }
    }

    /// This model, explored to this bound, has noticed the mutant of this name.
    fn learn(&mut self, id: &str, model: (Model, usize)) {
        if let Some((file, function)) = place(id) {
            for scope in [file.to_string(), format!("{file}/{function}")] {
                *self.kills.entry(scope).or_default().entry(model.clone()).or_default() += 1;
            }
        }
        self.last.insert(id.to_string(), model);
    }
}

/// The file and the function of a mutant of this name.
fn place(id: &str) -> Option<(&str, &str)> {
    let (file, rest) = id.split_at_checked(id.find(".rs/")? + 3)?;
    Some((file, rest[1..].split('/').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(core: &str) -> Versions {
        Versions { core: core.to_string(), models: "m".to_string(), calls: "c".to_string() }
    }

    #[test]
    fn what_has_noticed_a_mutant_is_tried_first_elsewhere_and_is_no_outcome() {
        let folder = std::env::temp_dir().join(format!("upager-mutants-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [first, second, noticed] = ["first", "second", "noticed"].map(|name| folder.join(name));
        let mut mutant = Mutant::default();
        mutant.id = "platform/mod.rs/Frame::new/to-Relaxed/1".to_string();
        mutant.file = "platform/mod.rs".to_string();
        mutant.function = "Frame::new".to_string();
        let by = Model::Cell("Absent: Read / Supply".to_string());
        let kill = Kill { by: by.clone(), bound: 2, execution: Some(7), why: "wrong".to_string() };
        let record = Record::open(&first, &noticed, versions("a")).unwrap();
        record.add(&mutant, &Run { outcome: Outcome::Killed(kill), seconds: 1.0 }).unwrap();
        fs::write(&noticed, record.noticed([&mutant])).unwrap();

        let elsewhere = Record::open(&second, &noticed, versions("b")).unwrap();
        assert!(elsewhere.known(&mutant.id).is_none());
        assert_eq!(elsewhere.noticed_before(&mutant), Some((by.clone(), 2)));
        assert_eq!(elsewhere.likely(&mutant, 5), [(by, 2)]);
        assert_eq!(elsewhere.noticed([&mutant]), "", "nothing of this core");
        fs::remove_dir_all(folder).unwrap();
    }
}
