//! Public calls that do nothing: each that can fail refuses, at once or from its second time in an execution on; each that has
//! nothing to say but that it is done, says so; each that counts says one.
//!
//! Where a call has nothing to do, that it does nothing and says so is all that a model of it can check. What is wrong with
//! an order or a transition does not show there. And where the set-up of a model makes the same call, only what is wrong
//! with the second one can show what the model notices.

use syn::spanned::Spanned;
use syn::{GenericArgument, ImplItemFn, PathArguments, ReturnType, Type, Visibility};

use super::{Choice, Maker, Part, range};

/// It is made together with others only: what counts the times is there.
pub(super) const AGAIN: &str = "refuses-again";
pub(super) const KINDS: [&str; 4] = ["refuses", AGAIN, "does-nothing", "says-one"];

impl Maker<'_> {
    /// The mutants of a call, if it is public.
    pub(super) fn call(&mut self, call: &ImplItemFn) {
        let ReturnType::Type(_, returned) = &call.sig.output else { return };
        let Type::Path(path) = &**returned else { return };
        let (Visibility::Public(_), Some(last)) = (&call.vis, path.path.segments.last()) else { return };
        match last.ident.to_string().as_str() {
            "Result" => {
                let PathArguments::AngleBracketed(of) = &last.arguments else { return };
                self.answer(call, "refuses", "Err(crate::Status::Canceled)");
                // One that is evaluated by the compiler has no times.
                if call.sig.constness.is_none() {
                    self.answer(call, AGAIN, "Err(crate::Status::Canceled)");
                }
                if let Some(GenericArgument::Type(Type::Tuple(nothing))) = of.args.first()
                    && nothing.elems.is_empty()
                {
                    self.answer(call, "does-nothing", "Ok(())");
                }
            }
            "PageCount" => self.answer(call, "says-one", "crate::PageCount(1)"),
            "usize" => self.answer(call, "says-one", "1"),
            _ => {}
        }
    }

    /// A mutant that answers at once.
    fn answer(&mut self, call: &ImplItemFn, kind: &str, with: &str) {
        let begin = range(call.block.brace_token.span.open()).end;
        let answer = format!(" return {with};");
        let chosen = if kind == AGAIN { Part::ChosenAgain } else { Part::Chosen };
        let parts = vec![Part::Text(" if ".to_string()), chosen, Part::Text(format!(" {{{answer} }}"))];
        let choice = Choice { at: begin..begin, parts };
        self.add(kind, &call.sig.output.span(), vec![(begin..begin, answer)], Some(choice));
    }
}
