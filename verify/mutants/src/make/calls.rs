//! Public calls that do nothing: each that can fail refuses; each that has nothing to say but that it is done, says so; each that
//! counts says one; and each end of something leaves all as it is. They do so at once, from their second time in an execution on,
//! beside another call, as one does that tries a lock, or on another thread than the one that made the pager, as one does that keeps something for its thread.
//! And public calls that wait: each begins when no thread is stopped in another.
//!
//! Where a call has nothing to do, that it does nothing and says so is all that a model of it can check. What is wrong with
//! an order or a transition does not show there. And where the set-up of a model makes the same call, or its end does, only what
//! is wrong with a later one, or with two at once, can show what the model notices. That a call waits for a thread which is stopped is
//! what the models with one are for: of a call that nobody can see the end of, it is all that they can notice.

use syn::{GenericArgument, ImplItemFn, PathArguments, ReturnType, Type, Visibility};

use super::{Choice, Maker, Part, When, range};

pub(super) const WAITS: &str = "waits-for-the-stopped";
const ANSWERS: [&str; 3] = ["refuses", "does-nothing", "says-one"];

/// When a call is wrong that is so only where others are too.
const TOGETHER: [When; 2] = [When::Beside, When::Elsewhere];

/// Whether a mutant of this kind is one of a public call.
pub(super) fn is_of_a_call(kind: &str) -> bool {
    kind == WAITS || ANSWERS.iter().any(|answer| kind.starts_with(answer))
}

/// Whether one of this kind is made together with others only: what counts the times, and who is in a call, is there.
pub(super) fn is_made_together_only(kind: &str) -> bool {
    kind == WAITS || (is_of_a_call(kind) && !ANSWERS.contains(&kind))
}

/// Whether a thread is in a call of the core's while it is in this function, of an `impl` of this trait: it is public, or a poll, or an end.
pub(crate) fn is_a_call(function: &ImplItemFn, of_trait: Option<&str>) -> bool {
    let is_public = matches!(function.vis, Visibility::Public(_)) || matches!(of_trait, Some("Drop" | "Future"));
    // What is evaluated by the compiler has no times; and who makes a thing is beside nobody who has it.
    is_public && function.sig.constness.is_none() && function.sig.receiver().is_some()
}

impl Maker<'_> {
    /// The mutants of a call, if it is one.
    pub(super) fn call(&mut self, call: &ImplItemFn) {
        let of_trait = self.of_trait.as_deref();
        let is_an_end = of_trait == Some("Drop");
        let is_a_call = is_a_call(call, of_trait);
        if is_a_call {
            self.waits(call);
        }
        if is_an_end {
            self.answer(call, "does-nothing", "", When::Always);
        }
        if is_an_end && self.public.contains(&self.owner) {
            for when in TOGETHER {
                self.answer(call, "does-nothing", "", when);
            }
        }
        let ReturnType::Type(_, returned) = &call.sig.output else { return };
        let Type::Path(path) = &**returned else { return };
        let (Visibility::Public(_), Some(last)) = (&call.vis, path.path.segments.last()) else { return };
        let mut answers = |answer: &str, with: &str| {
            self.answer(call, answer, with, When::Always);
            if call.sig.constness.is_none() {
                self.answer(call, answer, with, When::Again);
            }
            if is_a_call {
                for when in TOGETHER {
                    self.answer(call, answer, with, when);
                }
            }
        };
        match last.ident.to_string().as_str() {
            "Result" => {
                let PathArguments::AngleBracketed(of) = &last.arguments else { return };
                answers("refuses", "Err(crate::Status::Canceled)");
                if let Some(GenericArgument::Type(Type::Tuple(nothing))) = of.args.first()
                    && nothing.elems.is_empty()
                {
                    self.answer(call, "does-nothing", "Ok(())", When::Always);
                }
            }
            "PageCount" => answers("says-one", "crate::PageCount(1)"),
            "usize" => answers("says-one", "1"),
            _ => {}
        }
    }

    /// A mutant that answers at once.
    fn answer(&mut self, call: &ImplItemFn, answer: &str, with: &str, when: When) {
        let returns = if with.is_empty() { " return;".to_string() } else { format!(" return {with};") };
        let parts = vec![Part::Text(" if ".to_string()), Part::Chosen(when), Part::Text(format!(" {{{returns} }}"))];
        self.first(call, &format!("{answer}{}", when.suffix()), returns, parts);
    }

    /// A mutant that waits while a thread is stopped.
    fn waits(&mut self, call: &ImplItemFn) {
        let parts =
            vec![Part::Text(" if ".to_string()), Part::CHOSEN, Part::Text(" { crate::mistake::wait(); }".to_string())];
        self.first(call, WAITS, " while stopped::one_has() {}".to_string(), parts);
    }

    /// A mutant that does this first.
    fn first(&mut self, call: &ImplItemFn, kind: &str, shown: String, parts: Vec<Part>) {
        let begin = range(call.block.brace_token.span.open()).end;
        let choice = Choice { at: begin..begin, parts };
        self.add(kind, &call.sig.ident, vec![(begin..begin, shown)], Some(choice));
    }
}
