//! Any sequence of calls does what it does to bytes in memory.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use upager::{PageIndex, block_on};
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, PageSource, Retry, RetryPolicy, Rule};

use crate::kinds::of_any_bytes;
use crate::{PAGE, buffer, contents, pattern, read};

const PAGES: u64 = 12;

#[derive(Clone, Debug)]
enum Call {
    Read { first: u64, pages: u64 },
    Write { first: u64, pages: u64, seed: u64 },
    Sync,
}

fn call() -> impl Strategy<Value = Call> {
    let range = || (0..PAGES + 2, 0..6u64);
    prop_oneof![
        4 => range().prop_map(|(first, pages)| Call::Read { first, pages }),
        4 => (range(), any::<u64>()).prop_map(|((first, pages), seed)| Call::Write { first, pages, seed }),
        1 => Just(Call::Sync),
    ]
}

/// What the contract says, in memory.
struct Model(Vec<u8>);

impl Model {
    fn read(&self, first: u64, pages: u64) -> Vec<u8> {
        let (start, len) = (first as usize * PAGE, pages as usize * PAGE);
        (start..start + len).map(|at| self.0.get(at).copied().unwrap_or(0)).collect()
    }

    /// `false`: past the end.
    fn write(&mut self, first: u64, bytes: &[u8]) -> bool {
        let start = first as usize * PAGE;
        if !bytes.is_empty() && start + bytes.len() > self.0.len().next_multiple_of(PAGE) {
            return false;
        }
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(stored) = self.0.get_mut(start + at) {
                *stored = *byte;
            }
        }
        true
    }
}

fn run(source: &dyn PageSource, model: &mut Model, calls: &[Call]) -> Result<(), TestCaseError> {
    let writable = source.capabilities().writable;
    for call in calls {
        match *call {
            Call::Read { first, pages } => {
                let got = read(source, first, pages).unwrap();
                prop_assert!(got[..] == model.read(first, pages)[..], "{:?}", call);
            }
            Call::Write { first, pages, seed } => {
                let bytes = pattern(pages as usize * PAGE, seed);
                let result = block_on(source.write_pages(PageIndex(first), Arc::new(buffer(&bytes))));
                let expected = match (writable, writable && model.write(first, &bytes)) {
                    (false, _) => Some(ErrorKind::ReadOnly),
                    (true, false) => Some(ErrorKind::PastEnd),
                    (true, true) => None,
                };
                prop_assert_eq!(result.err().map(|error| error.kind()), expected, "{:?}", call);
            }
            Call::Sync => block_on(source.sync()).unwrap(),
        }
    }
    prop_assert!(contents(source) == model.0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_does_what_memory_does(
        len in 0..=PAGES as usize * PAGE,
        seed in any::<u64>(),
        calls in vec(call(), 0..30),
    ) {
        let bytes = pattern(len, seed);
        for kind in of_any_bytes() {
            let source = (kind.make)(&bytes);
            let done = run(&*source, &mut Model(bytes.clone()), &calls);
            prop_assert!(done.is_ok(), "{}: {:?}", kind.name, done);
        }
    }

    #[test]
    fn under_transient_faults_a_retry_does_what_memory_does(
        len in 0..=PAGES as usize * PAGE,
        seed in any::<u64>(),
        calls in vec(call(), 0..30),
    ) {
        let bytes = pattern(len, seed);
        let faulty = Injector::new(Memory::new(bytes.clone()), seed);
        let unavailable = ErrorKind::Unavailable;
        for fault in [Fault::Error(unavailable), Fault::Half(unavailable), Fault::Unheard(unavailable)] {
            // Not sync: that is not tried again.
            for operation in [upager_linux::source::Operation::Read, upager_linux::source::Operation::Write] {
                faulty.add(Rule { operation: Some(operation), probability: 0.2, ..Rule::always(fault) });
            }
        }
        let policy = RetryPolicy {
            attempts: std::num::NonZeroU32::new(1000).unwrap(),
            first_wait: std::time::Duration::ZERO,
            ..RetryPolicy::default()
        };
        run(&Retry::new(faulty, policy), &mut Model(bytes), &calls)?;
    }
}
