//! With a preemption bound: each order of the steps that needs no more preemptions is explored, and no other.
//!
//! Small programs, made at random, are explored by the explorer, and by trying every order here. Where all that
//! they do is to exchange, nobody reads an old value, and both must come to the same. A bound beyond all that
//! an order can have must leave nothing out, old values neither.

#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::{Arc as StdArc, Mutex};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

/// A step of a thread, on one of the words.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Puts a number there that no other step does.
    Swap(usize, usize),
    Store(usize, usize),
    Load(usize),
}

/// What a program is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Swaps,
    SwapsAndLoads,
    All,
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
                if of != Of::Swaps && numbers.below(2) == 0 {
                    return Step::Load(word);
                }
                last += 1;
                if of == Of::All && numbers.below(2) == 0 { Step::Store(word, last) } else { Step::Swap(word, last) }
            };
            (0..=numbers.below(steps)).map(|_| step(numbers)).collect()
        };
        (0..threads).map(|_| thread(self)).collect()
    }
}

/// All that the explorer comes to.
fn explored(program: &Program, bound: Option<usize>) -> BTreeSet<Came> {
    let came = StdArc::new(Mutex::new(BTreeSet::new()));
    let (to, program) = (came.clone(), program.clone());
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.check(move || {
        let words: Arc<[AtomicUsize; WORDS]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let run = |steps: &[Step]| {
            let (words, steps) = (words.clone(), steps.to_vec());
            let take = move |step: &Step| match *step {
                Step::Swap(word, number) => words[word].swap(number, Relaxed),
                Step::Store(word, number) => {
                    words[word].store(number, Relaxed);
                    0
                }
                Step::Load(word) => words[word].load(Relaxed),
            };
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
            let read = match self.program[thread][came[thread].len()] {
                Step::Swap(word, number) => std::mem::replace(&mut words[word], number),
                Step::Store(word, number) => {
                    words[word] = number;
                    0
                }
                Step::Load(word) => words[word],
            };
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

/// Programs of two and of three threads.
fn programs(of: Of) -> impl Iterator<Item = Program> {
    let mut numbers = Numbers(1);
    (0..400).map(move |at| {
        let (threads, steps) = if at % 2 == 0 { (2, 5) } else { (3, 3) };
        numbers.program(threads, steps, of)
    })
}

fn compare_with_all_orders(of: Of) {
    for program in programs(of) {
        for bound in 0..4 {
            let (came, must) = (explored(&program, Some(bound)), all_orders(&program, bound));
            let missed: Vec<_> = must.difference(&came).collect();
            assert!(missed.is_empty(), "bound {bound}: {program:?} never came to {missed:?}");
            assert!(of != Of::Swaps || came == must, "bound {bound}: {program:?} came to more");
        }
    }
}

#[test]
fn exchanges_have_every_order_within_the_bound() {
    compare_with_all_orders(Of::Swaps);
}

/// A load may read an old value besides.
#[test]
fn loads_see_every_order_within_the_bound() {
    compare_with_all_orders(Of::SwapsAndLoads);
    compare_with_all_orders(Of::All);
}

#[test]
fn a_bound_that_no_order_reaches_leaves_nothing_out() {
    for program in programs(Of::All) {
        assert_eq!(explored(&program, Some(20)), explored(&program, None), "{program:?}");
    }
}
