//! Public calls that do nothing: each that can fail refuses; each that has nothing to say but that it is done, says so; each
//! that counts says one.
//!
//! Where a call has nothing to do, that it does nothing and says so is all that a model of it can check. What is wrong with
//! an order or a transition does not show there.

use syn::spanned::Spanned;
use syn::{GenericArgument, ImplItemFn, PathArguments, ReturnType, Type, Visibility};

use super::{Choice, Maker, Part, range};

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
        let parts = vec![Part::Text(" if ".to_string()), Part::Chosen, Part::Text(format!(" {{{answer} }}"))];
        let choice = Choice { at: begin..begin, parts };
        self.add(kind, &call.sig.output.span(), vec![(begin..begin, answer)], Some(choice));
    }
}
