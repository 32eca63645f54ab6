//! Public calls that do nothing: each that can fail refuses, at once or from its second time in an execution on; each that has
//! nothing to say but that it is done, says so; each end of something leaves all as it is; each that counts says one, at once or
//! from its second time on. And public calls that wait: each begins when no thread is stopped in another.
//!
//! Where a call has nothing to do, that it does nothing and says so is all that a model of it can check. What is wrong with
//! an order or a transition does not show there. And where the set-up of a model makes the same call, only what is wrong
//! with the second one can show what the model notices. That a call waits for a thread which is stopped is what the models with
//! one are for: of a call that nobody can see the end of, it is all that they can notice.

use syn::{GenericArgument, ImplItemFn, PathArguments, ReturnType, Type, Visibility};

use super::{Choice, Maker, Part, range};

/// These are made together with others only: what counts the times, and what waits, is there.
pub(super) const TOGETHER_ONLY: [&str; 3] = ["refuses-again", "says-one-again", WAITS];
pub(super) const WAITS: &str = "waits-for-the-stopped";
pub(super) const KINDS: [&str; 6] = [TOGETHER_ONLY[0], TOGETHER_ONLY[1], WAITS, "refuses", "does-nothing", "says-one"];

impl Maker<'_> {
    /// The mutants of a call, if it is public.
    pub(super) fn call(&mut self, call: &ImplItemFn) {
        let is_of_a_trait = self.of_trait.as_ref().is_some_and(|of| of == "Drop" || of == "Future");
        let is_public = matches!(call.vis, Visibility::Public(_));
        // One that is evaluated by the compiler has no times, and nobody is stopped in it.
        let is_run = call.sig.constness.is_none();
        // What makes a thing is beside nobody who has it.
        if (is_public || is_of_a_trait) && is_run && call.sig.receiver().is_some() {
            self.waits(call);
        }
        if self.of_trait.as_ref().is_some_and(|of| of == "Drop") {
            self.answer(call, "does-nothing", "");
        }
        let ReturnType::Type(_, returned) = &call.sig.output else { return };
        let Type::Path(path) = &**returned else { return };
        let (true, Some(last)) = (is_public, path.path.segments.last()) else { return };
        let mut answers = |kind: &str, with: &str| {
            self.answer(call, kind, with);
            if is_run && kind != "does-nothing" {
                self.answer(call, &format!("{kind}-again"), with);
            }
        };
        match last.ident.to_string().as_str() {
            "Result" => {
                let PathArguments::AngleBracketed(of) = &last.arguments else { return };
                answers("refuses", "Err(crate::Status::Canceled)");
                if let Some(GenericArgument::Type(Type::Tuple(nothing))) = of.args.first()
                    && nothing.elems.is_empty()
                {
                    answers("does-nothing", "Ok(())");
                }
            }
            "PageCount" => answers("says-one", "crate::PageCount(1)"),
            "usize" => answers("says-one", "1"),
            _ => {}
        }
    }

    /// A mutant that answers at once.
    fn answer(&mut self, call: &ImplItemFn, kind: &str, with: &str) {
        let answer = if with.is_empty() { " return;".to_string() } else { format!(" return {with};") };
        let chosen = if TOGETHER_ONLY.contains(&kind) { Part::ChosenAgain } else { Part::Chosen };
        let parts = vec![Part::Text(" if ".to_string()), chosen, Part::Text(format!(" {{{answer} }}"))];
        self.first(call, kind, answer, parts);
    }

    /// A mutant that waits while a thread is stopped.
    fn waits(&mut self, call: &ImplItemFn) {
        let parts =
            vec![Part::Text(" if ".to_string()), Part::Chosen, Part::Text(" { crate::mistake::wait(); }".to_string())];
        self.first(call, WAITS, " while stopped::one_has() {}".to_string(), parts);
    }

    /// A mutant that does this first.
    fn first(&mut self, call: &ImplItemFn, kind: &str, shown: String, parts: Vec<Part>) {
        let begin = range(call.block.brace_token.span.open()).end;
        let choice = Choice { at: begin..begin, parts };
        self.add(kind, &call.sig.ident, vec![(begin..begin, shown)], Some(choice));
    }
}
