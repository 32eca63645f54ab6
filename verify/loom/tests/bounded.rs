//! With a preemption bound: each order of the steps that needs no more preemptions is explored, and no other.
//!
//! Small programs, made at random, are explored by the explorer, and by trying every order here. Where all that
//! they do is to exchange, nobody reads an old value, and both must come to the same. A bound beyond all that
//! an order can have must leave nothing out, old values neither; and without a bound, where an exchange that has failed
//! counts as a load and threads sleep, nothing is left out that there is with it.

#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::{Arc as StdArc, Mutex};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering, Ordering::*, fence};
use loom::thread;

/// A step of a thread, on one of the words.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Puts a number there that no other step does.
    Swap(usize, usize),
    /// Puts a number there if another one is there.
    Exchange(usize, usize, usize),
    Store(usize, usize),
    Load(usize),
    Fence,
}

impl Step {
    fn take(self, words: &[AtomicUsize; WORDS], is_ordered: bool) -> usize {
        let order = |order: Ordering| if is_ordered { order } else { Relaxed };
        match self {
            Self::Swap(word, number) => words[word].swap(number, order(AcqRel)),
            Self::Exchange(word, from, to) => {
                let exchanged = words[word].compare_exchange(from, to, order(AcqRel), order(Acquire));
                exchanged.unwrap_or_else(|now| now + FAILED)
            }
            Self::Store(word, number) => {
                words[word].store(number, order(Release));
                0
            }
            Self::Load(word) => words[word].load(order(Acquire)),
            Self::Fence => {
                fence(SeqCst);
                0
            }
        }
    }

    /// The same on words that are nobody else's.
    fn take_alone(self, words: &mut [usize; WORDS]) -> usize {
        match self {
            Self::Swap(word, number) => std::mem::replace(&mut words[word], number),
            Self::Exchange(word, from, to) if words[word] == from => std::mem::replace(&mut words[word], to),
            Self::Exchange(word, ..) => words[word] + FAILED,
            Self::Store(word, number) => {
                words[word] = number;
                0
            }
            Self::Load(word) => words[word],
            Self::Fence => 0,
        }
    }
}

/// Added to what an exchange finds that fails.
const FAILED: usize = 1000;

/// What a program is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Swaps,
    Exchanges,
    SwapsAndLoads,
    /// One word is stored to only, the other exchanged: of a word that is both, loom also finds values that no order of
    /// modifications has, or gives up.
    All,
    /// With orders, and fences.
    AllOrdered,
}

const WORDS: usize = 2;

/// The steps of each thread.
type Program = Vec<Vec<Step>>;
/// What each step of each thread read.
type Came = Vec<Vec<usize>>;

/// The same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n) as usize
    }

    /// Of `threads` threads, with up to so many steps each.
    fn program(&mut self, threads: usize, steps: u64, of: Of) -> Program {
        let mut last = 0;
        let mut thread = |numbers: &mut Self| {
            let mut step = |numbers: &mut Self| {
                let word = numbers.below(WORDS as u64);
                if of == Of::AllOrdered && numbers.below(6) == 0 {
                    return Step::Fence;
                }
                if !matches!(of, Of::Swaps | Of::Exchanges) && numbers.below(2) == 0 {
                    return Step::Load(word);
                }
                last += 1;
                match (of, numbers.below(4)) {
                    (Of::All | Of::AllOrdered, _) if word == 0 => Step::Store(word, last),
                    (Of::Exchanges | Of::All | Of::AllOrdered, 0 | 1) => {
                        Step::Exchange(word, numbers.below(last as u64), last)
                    }
                    _ => Step::Swap(word, last),
                }
            };
            (0..=numbers.below(steps)).map(|_| step(numbers)).collect()
        };
        (0..threads).map(|_| thread(self)).collect()
    }
}

/// All that the explorer comes to.
fn explored(program: &Program, bound: Option<usize>, is_ordered: bool) -> BTreeSet<Came> {
    let came = StdArc::new(Mutex::new(BTreeSet::new()));
    let (to, program) = (came.clone(), program.clone());
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.check(move || {
        let words: Arc<[AtomicUsize; WORDS]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let run = |steps: &[Step]| {
            let (words, steps) = (words.clone(), steps.to_vec());
            let take = move |step: &Step| step.take(&words, is_ordered);
            thread::spawn(move || steps.iter().map(take).collect::<Vec<_>>())
        };
        let threads: Vec<_> = program.iter().map(|steps| run(steps)).collect();
        to.lock().unwrap().insert(threads.into_iter().map(|thread| thread.join().unwrap()).collect());
    });
    let came = std::mem::take(&mut *came.lock().unwrap());
    came
}

/// All that any order comes to that has no more than so many preemptions.
struct Orders<'a> {
    program: &'a Program,
    bound: usize,
    came: BTreeSet<Came>,
}

impl Orders<'_> {
    fn try_all(&mut self, words: [usize; WORDS], came: &Came, last: Option<usize>, preemptions: usize) {
        let goes_on = |thread: usize| came[thread].len() < self.program[thread].len();
        let threads: Vec<usize> = (0..came.len()).filter(|&thread| goes_on(thread)).collect();
        if threads.is_empty() {
            self.came.insert(came.clone());
        }
        let may_go_on = last.is_some_and(goes_on);
        for thread in threads {
            let preemptions = preemptions + usize::from(may_go_on && last != Some(thread));
            if preemptions > self.bound {
                continue;
            }
            let (mut words, mut came) = (words, came.clone());
            let read = self.program[thread][came[thread].len()].take_alone(&mut words);
            came[thread].push(read);
            self.try_all(words, &came, Some(thread), preemptions);
        }
    }
}

fn all_orders(program: &Program, bound: usize) -> BTreeSet<Came> {
    let mut orders = Orders { program, bound, came: BTreeSet::new() };
    orders.try_all([0; WORDS], &vec![Vec::new(); program.len()], None, 0);
    orders.came
}

/// Whether the modifications of each word have an order that every thread may have seen so. Loom also comes to what has none.
fn is_coherent(program: &Program, came: &Came) -> bool {
    (0..WORDS).all(|word| {
        let writes: Vec<usize> = program.iter().zip(came).flat_map(|(steps, came)| written(word, steps, came)).collect();
        let mut order = vec![0];
        has_order(&mut order, &writes, &|order| {
            program.iter().zip(came).all(|(steps, came)| may_see(order, word, steps, came))
        })
    })
}

/// What the steps write to a word.
fn written<'a>(word: usize, steps: &'a [Step], came: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    steps.iter().zip(came).filter_map(move |(step, read)| match *step {
        Step::Swap(of, number) | Step::Store(of, number) if of == word => Some(number),
        Step::Exchange(of, _, number) if of == word && *read < FAILED => Some(number),
        _ => None,
    })
}

/// Whether any order of the writes will do that begins so.
fn has_order(order: &mut Vec<usize>, writes: &[usize], will_do: &impl Fn(&[usize]) -> bool) -> bool {
    if order.len() > writes.len() {
        return will_do(order);
    }
    writes.iter().any(|write| {
        let is_new = !order.contains(write);
        is_new && {
            order.push(*write);
            let has = has_order(order, writes, will_do);
            order.pop();
            has
        }
    })
}

/// Whether a thread may have seen a word change in this order.
fn may_see(order: &[usize], word: usize, steps: &[Step], came: &[usize]) -> bool {
    let at = |number: usize| order.iter().position(|other| *other == number);
    let mut seen = 0;
    steps.iter().zip(came).all(|(step, read)| {
        let (reads, writes) = match *step {
            Step::Swap(of, number) if of == word => (at(*read), at(number)),
            Step::Exchange(of, _, number) if of == word && *read < FAILED => (at(*read), at(number)),
            Step::Exchange(of, ..) if of == word => (at(*read - FAILED), None),
            Step::Load(of) if of == word => (at(*read), None),
            Step::Store(of, number) if of == word => (None, at(number)),
            _ => return true,
        };
        let is_later = reads.is_none_or(|reads| reads >= seen) && writes.is_none_or(|writes| writes > seen);
        let is_next = reads.zip(writes).is_none_or(|(reads, writes)| writes == reads + 1);
        seen = writes.or(reads).unwrap_or(seen);
        is_later && is_next
    })
}

/// Programs of two and of three threads.
fn programs(of: Of) -> impl Iterator<Item = Program> {
    let mut numbers = Numbers(1);
    (0..400).map(move |at| {
        let (threads, steps) = if at % 2 == 0 { (2, 5) } else { (3, 3) };
        numbers.program(threads, steps, of)
    })
}

/// Longer ones of three threads.
fn long_programs(of: Of) -> impl Iterator<Item = Program> {
    let mut numbers = Numbers(2);
    (0..1000).map(move |_| numbers.program(3, 4, of))
}

fn compare_with_orders(program: &Program, bound: Option<usize>, of: Of) {
    let (came, must) = (explored(program, bound, false), all_orders(program, bound.unwrap_or(usize::MAX)));
    let missed: Vec<_> = must.difference(&came).collect();
    assert!(missed.is_empty(), "bound {bound:?}: {program:?} never came to {missed:?}");
    let is_exact = matches!(of, Of::Swaps | Of::Exchanges);
    assert!(!is_exact || came == must, "bound {bound:?}: {program:?} came to more");
}

fn compare_with_all_orders(of: Of) {
    for program in programs(of) {
        for bound in [Some(0), Some(1), Some(2), Some(3), None] {
            compare_with_orders(&program, bound, of);
        }
    }
}

#[test]
fn exchanges_have_every_order_within_the_bound() {
    compare_with_all_orders(Of::Swaps);
    compare_with_all_orders(Of::Exchanges);
}

/// A load may read an old value besides.
#[test]
fn loads_see_every_order_within_the_bound() {
    compare_with_all_orders(Of::SwapsAndLoads);
    compare_with_all_orders(Of::All);
}

/// What sleeps must not hide an order that begins with another thread.
#[test]
fn without_a_bound_three_threads_have_every_order() {
    for of in [Of::Swaps, Of::Exchanges, Of::SwapsAndLoads, Of::All] {
        for program in long_programs(of) {
            compare_with_orders(&program, None, of);
        }
    }
}

#[test]
fn a_bound_that_no_order_reaches_leaves_nothing_out() {
    for (of, is_ordered) in [(Of::All, false), (Of::AllOrdered, true)] {
        for program in programs(of) {
            let (bounded, came) = (explored(&program, Some(20), is_ordered), explored(&program, None, is_ordered));
            let missed: Vec<_> = bounded.difference(&came).filter(|came| is_coherent(&program, came)).collect();
            assert!(missed.is_empty(), "without a bound {program:?} never came to {missed:?}");
            let missed: Vec<_> = came.difference(&bounded).filter(|came| is_coherent(&program, came)).collect();
            assert!(missed.is_empty(), "with one {program:?} never came to {missed:?}");
        }
    }
}
