//! Many mistakes in one build: each is a choice that the program makes as it runs.
//!
//! A program that was built so reads the number of one mistake from its environment, and makes that one; without
//! a number it makes none. So what takes time is to run the models, not to build them. Two mistakes whose places in
//! the text overlap, and none of which lies within the other, are not made in one build; neither are those that do
//! not compile beside the text that they replace.
//!
//! Such a program can also say which mistakes each execution came by, and makes none then. A model in none of whose
//! executions a mistake is come by is the same with it as without, and need not be run.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::failure::Failure;
use crate::make::{self, Choice, Mutant, Part, TAGS};
use crate::source::Source;

/// The variable that chooses a mistake.
pub(crate) const VARIABLE: &str = "UPAGER_MISTAKE";

/// What it says for no mistake, when the program is to say which it came by.
pub(crate) const TO_TELL: u32 = u32::MAX;

/// What `lib.rs` has besides.
const CHOOSER: &str = r#"
#[doc(hidden)]
#[allow(missing_docs)]
pub mod mistake {
    extern crate std;
    use alloc::string::String;
    use alloc::vec::Vec;
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::{Mutex, OnceLock};

    const TO_TELL: u32 = u32::MAX;
    static CHOSEN: OnceLock<u32> = OnceLock::new();
    static REACHED: Mutex<Option<Reached>> = Mutex::new(None);
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    static INSIDE: Mutex<Vec<Id>> = Mutex::new(Vec::new());
    static FIRST: Mutex<Option<Id>> = Mutex::new(None);

    #[cfg(loom)]
    use loom::thread::{self, ThreadId as Id};
    #[cfg(not(loom))]
    use std::thread::{self, ThreadId as Id};

    /// The mistakes that an execution came by, as bits; and all such sets that there were, with numbers.
    struct Reached {
        now: Vec<u64>,
        sets: HashMap<Vec<u64>, usize>,
    }

    unsafe extern "C" {
        fn atexit(f: extern "C" fn()) -> i32;
    }

    fn chosen() -> u32 {
        *CHOSEN.get_or_init(|| std::env::var("UPAGER_MISTAKE").ok().and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Whether the mistake of this number is to be made.
    #[inline]
    pub fn is(number: u32) -> bool {
        let chosen = chosen();
        if chosen == TO_TELL {
            came_by(number as usize);
        }
        chosen == number
    }

    /// The same, but not the first time in an execution.
    pub fn is_again(number: u32) -> bool {
        is(number) && TIMES.fetch_add(1, Relaxed) > 0
    }

    /// The same, while another thread is in a call.
    pub fn is_beside(number: u32) -> bool {
        is(number) && {
            let own = thread::current().id();
            INSIDE.lock().unwrap().iter().any(|id| *id != own)
        }
    }

    /// The same, on another thread than the one that has made the pager.
    pub fn is_elsewhere(number: u32) -> bool {
        is(number) && *FIRST.lock().unwrap() != Some(thread::current().id())
    }

    /// The calling thread is in a call.
    pub struct Inside(Id);

    pub fn enter() -> Inside {
        let own = thread::current().id();
        INSIDE.lock().unwrap().push(own);
        Inside(own)
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            let mut inside = INSIDE.lock().unwrap();
            if let Some(at) = inside.iter().rposition(|id| *id == self.0) {
                inside.swap_remove(at);
            }
        }
    }

    /// Waits while a thread is stopped.
    pub fn wait() {
        #[cfg(loom)]
        while crate::sync::stopped::one_has() {
            loom::thread::yield_now();
        }
    }

    fn came_by(number: usize) {
        let mut reached = REACHED.lock().unwrap();
        let now = &mut reached.get_or_insert_with(new).now;
        if now.len() <= number / 64 {
            now.resize(number / 64 + 1, 0);
        }
        now[number / 64] |= 1 << (number % 64);
    }

    fn new() -> Reached {
        // SAFETY: a C function that is given another.
        unsafe { atexit(end) };
        Reached { now: Vec::new(), sets: HashMap::new() }
    }

    /// An execution begins.
    pub fn begin() {
        TIMES.store(0, Relaxed);
        INSIDE.lock().unwrap().clear(); // one that failed may not have left
        *FIRST.lock().unwrap() = Some(thread::current().id());
        if chosen() == TO_TELL {
            end();
        }
    }

    extern "C" fn end() {
        let mut reached = REACHED.lock().unwrap();
        let Reached { now, sets } = reached.get_or_insert_with(new);
        let now = core::mem::take(now);
        if let Some(number) = sets.get(&now) {
            std::eprintln!("reached {number}");
            return;
        }
        let bits = (0..now.len() * 64).filter(|bit| now[bit / 64] >> (bit % 64) & 1 != 0);
        let mut text = String::new();
        for bit in bits {
            text.push(' ');
            text.push_str(&alloc::string::ToString::to_string(&bit));
        }
        std::eprintln!("reached {} ={text}", sets.len());
        let number = sets.len();
        sets.insert(now, number);
    }
}
"#;

/// A file with many mistakes.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Where in the text which mutant is, by its number.
    places: Vec<(Range<usize>, u32)>,
}

impl Merged {
    /// The mutant at a place in the text: the innermost.
    pub(crate) fn at(&self, place: &Range<usize>) -> Option<u32> {
        let around = self.places.iter().filter(|(at, _)| at.start <= place.start && place.end <= at.end);
        around.min_by_key(|(at, _)| at.len()).map(|(_, number)| *number)
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|(_, number)| *number)
    }
}

/// The files of the core with as many of the mutants, which have numbers, as go together.
pub(crate) fn merge(sources: &[Source], mutants: &[(&Mutant, u32)]) -> Result<Vec<Merged>, Failure> {
    let mut all = Vec::new();
    for source in sources {
        let of_file = mutants.iter().filter(|(mutant, _)| mutant.file == source.path);
        let mut choices: Vec<(Choice, u32)> =
            of_file.filter_map(|(mutant, number)| Some((mutant.choice.clone()?, *number))).collect();
        if source.path == BEGINS_IN {
            let parts = vec![Part::Text("crate::mistake::begin(); ".to_string())];
            choices.push((Choice { at: beginning(source)?, parts }, 0));
        }
        choices.extend(calls(source)?.into_iter().map(|at| {
            let parts = vec![Part::Text(" let _inside = crate::mistake::enter();".to_string())];
            (Choice { at, parts }, 0)
        }));
        let mut merger = Merger { text: &source.text, merged: String::new(), places: Vec::new() };
        if choices.is_empty() {
            merger.merged.clone_from(&source.text);
        } else {
            if source.path == TAGS {
                choices.extend(constants(source)?.into_iter().map(|at| (Choice { at, parts: Vec::new() }, 0)));
            }
            choices.sort_by_key(|(choice, number)| (choice.at.start, std::cmp::Reverse(choice.at.end), *number));
            merger.write(0..source.text.len(), &choices);
        }
        if source.path == "lib.rs" {
            merger.merged.push_str(CHOOSER);
        }
        all.push(Merged { path: source.path.clone(), text: merger.merged, places: merger.places });
    }
    Ok(all)
}

struct Merger<'a> {
    text: &'a str,
    merged: String,
    places: Vec<(Range<usize>, u32)>,
}

impl Merger<'_> {
    /// Writes a call of the chooser.
    fn ask(&mut self, what: &str, number: u32) {
        self.merged.extend(["crate::mistake::", what, "(", &number.to_string(), ")"]);
    }

    /// Writes a part of the text, with those of the choices in it that go together: of those that overlap, the first.
    fn write(&mut self, within: Range<usize>, choices: &[(Choice, u32)]) {
        let mut at = within.start;
        let mut rest = choices;
        while let [(choice, number), others @ ..] = rest {
            rest = others;
            if choice.at.start < at || choice.at.end > within.end {
                continue;
            }
            self.merged.push_str(&self.text[at..choice.at.start]);
            at = choice.at.end;
            let inner: Vec<(Choice, u32)> = others.iter().filter(|(other, _)| other.at.start < at).cloned().collect();
            let begun = self.merged.len();
            for part in &choice.parts {
                match part {
                    Part::Text(text) => self.merged.push_str(text),
                    Part::Chosen(when) => self.ask(when.question(), *number),
                    Part::Here(here) => {
                        let lies = |other: &Choice| here.start <= other.at.start && other.at.end <= here.end;
                        let inner: Vec<_> = inner.iter().filter(|(other, _)| lies(other)).cloned().collect();
                        self.write(here.clone(), &inner);
                    }
                }
            }
            if *number != 0 {
                self.places.push((begun..self.merged.len(), *number));
            }
        }
        self.merged.push_str(&self.text[at..within.end]);
    }
}

/// An execution of a model begins with the making of a pager.
const BEGINS_IN: &str = "pager.rs";

/// Where the function begins that makes a pager: an empty part of the text.
fn beginning(source: &Source) -> Result<Range<usize>, Failure> {
    let file = parsed(source)?;
    let functions = file.items.iter().filter_map(|item| match item {
        syn::Item::Impl(block) if block.trait_.is_none() => Some(&block.items),
        _ => None,
    });
    let makes_a_pager = |item: &&syn::ImplItem| matches!(item, syn::ImplItem::Fn(f) if f.sig.ident == "new" && f.sig.receiver().is_none());
    let found = functions.flatten().find(makes_a_pager);
    let Some(syn::ImplItem::Fn(new)) = found else {
        return Err(Failure::new(format!("{}: nothing makes a pager", source.path)));
    };
    let at = new.block.brace_token.span.open().byte_range().end;
    Ok(at..at)
}

/// Where calls begin. One that waits is not in a call meanwhile: its polls are.
fn calls(source: &Source) -> Result<Vec<Range<usize>>, Failure> {
    #[derive(Default)]
    struct Calls {
        of_trait: Option<String>,
        found: Vec<Range<usize>>,
    }
    impl<'ast> Visit<'ast> for Calls {
        fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
            self.of_trait = make::of_trait(item);
            visit::visit_item_impl(self, item);
        }

        fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
            if make::calls::is_a_call(function, self.of_trait.as_deref()) && function.sig.asyncness.is_none() {
                let at = function.block.brace_token.span.open().byte_range().end;
                self.found.push(at..at);
            }
        }
    }
    let mut calls = Calls::default();
    calls.visit_file(&parsed(source)?);
    Ok(calls.found)
}

fn parsed(source: &Source) -> Result<syn::File, Failure> {
    syn::parse_file(&source.text).map_err(|error| Failure::new(format!("{}: {error}", source.path)))
}

/// Where functions are said to be `const`, which none is that makes a choice. Those are in the file with the tags.
fn constants(source: &Source) -> Result<Vec<Range<usize>>, Failure> {
    struct Constants(Vec<Range<usize>>);
    impl<'ast> Visit<'ast> for Constants {
        fn visit_signature(&mut self, signature: &'ast syn::Signature) {
            self.0.extend(signature.constness.map(|token| token.span().byte_range()));
            visit::visit_signature(self, signature);
        }
    }
    let mut found = Constants(Vec::new());
    found.visit_file(&parsed(source)?);
    Ok(found.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::make;

    /// The text with all mutants that go together, and the names of those.
    fn merged(path: &str, text: &str) -> (String, Vec<String>) {
        let source = Source { path: path.to_string(), text: text.to_string() };
        let mutants = make::mutants(&source, &HashSet::new()).unwrap();
        let numbered: Vec<(&Mutant, u32)> = mutants.iter().zip(1..).collect();
        let mut merged = merge(std::slice::from_ref(&source), &numbered).unwrap();
        let merged = merged.pop().unwrap();
        let names = merged.numbers().map(|number| mutants[number as usize - 1].id.clone()).collect();
        (merged.text, names)
    }

    /// What a text says if `number` is chosen: each choice is cut down to one of its branches, as text.
    fn chosen(text: &str, number: u32) -> String {
        let mut text = text.to_string();
        while let Some(at) = text.rfind("crate::mistake::is(") {
            let end = at + text[at..].find(')').unwrap();
            let is = text[at + "crate::mistake::is(".len()..end].parse() == Ok(number);
            text.replace_range(at..=end, if is { "true" } else { "false" });
        }
        text
    }

    #[test]
    fn every_mutant_of_an_access_is_a_choice() {
        let (text, names) =
            merged("a.rs", "fn f(a: &A) -> bool { a.0.compare_exchange(1, 2, AcqRel, Acquire).is_ok() }");
        assert_eq!(names.len(), 5);
        assert!(syn::parse_file(&text).is_ok(), "{text}");
        let whole = text.find("(if crate").unwrap();
        assert!(text[whole..].contains("place.store(to, crate::sync::Release)"), "{text}");
        assert_eq!(text.matches("crate::mistake::is(").count(), 5);
    }

    #[test]
    fn a_statement_may_go_and_its_parts_may_be_wrong() {
        let (text, names) = merged("a.rs", "fn f(a: &A) { a.0.store(1, Release); }");
        assert_eq!(names, ["a.rs/f/to-Relaxed/1", "a.rs/f/without-store/1"]);
        assert_eq!(
            chosen(&text, 9),
            "fn f(a: &A) { if false {  } else { a.0.store(1, (if false { crate::sync::Relaxed } else { Release })); } }"
        );
    }

    #[test]
    fn of_exchanges_that_overlap_one_is_made() {
        let (text, names) = merged("a.rs", "fn f(a: &A) { a.mark(); a.seal(); a.wake(); }");
        assert!(names.contains(&"a.rs/f/mark-after-seal/1".to_string()), "{names:?}");
        assert!(!names.contains(&"a.rs/f/seal-after-wake/1".to_string()), "{names:?}");
        assert!(names.contains(&"a.rs/f/without-wake/1".to_string()), "{names:?}");
        assert!(text.contains("a.seal(); a.mark();"), "{text}");
    }

    #[test]
    fn what_binds_stays_while_its_neighbour_moves() {
        let (text, names) = merged("a.rs", "fn f(a: &A) { a.mark(); let b = a.look(); a.wake(b); }");
        let number = 1 + names.iter().position(|name| name == "a.rs/f/mark-after-let/1").unwrap();
        assert!(syn::parse_file(&text).is_ok(), "{text}");
        let before = text.find("a.mark();").unwrap();
        let bound = text.find("let b = a.look();").unwrap();
        let after = text.rfind("a.mark();").unwrap();
        assert!(number > 0 && before < bound && bound < after, "{text}");
    }

    #[test]
    fn a_place_in_the_text_tells_its_innermost_mutant() {
        let source = Source { path: "a.rs".to_string(), text: "fn f(a: &A) { a.0.store(1, Release); }".to_string() };
        let mutants = make::mutants(&source, &HashSet::new()).unwrap();
        let numbered: Vec<(&Mutant, u32)> = mutants.iter().zip(1..).collect();
        let merged = merge(std::slice::from_ref(&source), &numbered).unwrap();
        let place = |what: &str| {
            let start = merged[0].text.find(what).unwrap();
            let number = merged[0].at(&(start..start + what.len()))?;
            Some(mutants[number as usize - 1].kind.clone())
        };
        assert_eq!(place("crate::sync::Relaxed").as_deref(), Some("to-Relaxed"));
        assert_eq!(place("a.0.store").as_deref(), Some("without-store"));
        assert_eq!(place("fn f"), None);
    }
}
