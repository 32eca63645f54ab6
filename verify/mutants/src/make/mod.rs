//! Makes the mutants of a file: finds the places in the syntax tree, and edits the text there, so that
//! all the rest of the file stays as it is.
//!
//! A mutant's name is its file, function, kind, and which one of that kind in that function it is. So
//! it stays the same when other functions change.
//!
//! Most mutants can besides be made [together](crate::together): then a program chooses when it runs.

mod atomics;
pub(crate) mod calls;
mod statements;
mod tags;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr, ImplItemFn, Item, ItemFn, ItemImpl, ItemMod, Stmt, TraitItemFn};

use crate::failure::Failure;
use crate::source::{Source, is_compiled};

/// The file with the page word, its tags and its flags.
pub(crate) const TAGS: &str = "slot.rs";

/// One mistake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mutant {
    /// `slot.rs/Slot::change/success-to-Acquire/1`
    pub(crate) id: String,
    pub(crate) file: String,
    pub(crate) function: String,
    pub(crate) kind: String,
    pub(crate) line: usize,
    /// The statement or expression as it is, and as it becomes; on one line each.
    pub(crate) before: String,
    pub(crate) after: String,
    edits: Vec<Edit>,
    /// How it is made together with others. `None`: it is not.
    pub(crate) choice: Option<Choice>,
}

/// What stands in the place of a part of the text, so that the program makes the mistake if it is told to.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) at: Range<usize>,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    /// An expression: whether this mistake is to be made.
    Chosen(When),
    /// What there is in the text, which may have choices in it.
    Here(Range<usize>),
}

impl Part {
    const CHOSEN: Self = Self::Chosen(When::Always);
}

/// When a mistake is made that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Always,
    /// From the second time on that an execution comes by it.
    Again,
    /// While another thread is in a call.
    Beside,
    /// On another thread than the one that has made the pager.
    Elsewhere,
}

impl When {
    /// What the kind of such a mutant ends with.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Always => "",
            Self::Again => "-again",
            Self::Beside => "-beside",
            Self::Elsewhere => "-elsewhere",
        }
    }

    /// The chooser's function that is asked.
    pub(crate) const fn question(self) -> &'static str {
        match self {
            Self::Always => "is",
            Self::Again => "is_again",
            Self::Beside => "is_beside",
            Self::Elsewhere => "is_elsewhere",
        }
    }
}

impl Choice {
    /// `to` instead of the expression there.
    fn value(at: Range<usize>, to: &str) -> Self {
        let parts = vec![
            Part::Text("(if ".to_string()),
            Part::CHOSEN,
            Part::Text(format!(" {{ {to} }} else {{ ")),
            Part::Here(at.clone()),
            Part::Text(" })".to_string()),
        ];
        Self { at, parts }
    }

    /// `to` instead of the statements there, which bind nothing.
    fn statement(at: Range<usize>, to: &str) -> Self {
        let parts = vec![
            Part::Text("if ".to_string()),
            Part::CHOSEN,
            Part::Text(format!(" {{ {to} }} else {{ ")),
            Part::Here(at.clone()),
            Part::Text(" }".to_string()),
        ];
        Self { at, parts }
    }
}

#[derive(Clone, Debug)]
struct Edit {
    at: Range<usize>,
    to: String,
}

impl Mutant {
    /// Whether it only weakens an order.
    pub(crate) fn is_an_order(&self) -> bool {
        self.kind == "as-a-load"
            || ["Acquire", "Release", "AcqRel", "Relaxed"].iter().any(|order| self.kind.ends_with(order))
    }

    /// Whether it is a public call that does nothing.
    pub(crate) fn is_of_a_call(&self) -> bool {
        calls::is_of_a_call(&self.kind)
    }

    /// Whether the mistake is made by what chooses among several, and cannot be made alone.
    pub(crate) fn is_made_together_only(&self) -> bool {
        calls::is_made_together_only(&self.kind)
    }

    /// Whether it shows only where a thread is stopped.
    pub(crate) fn is_for_the_stopped(&self) -> bool {
        self.kind == calls::WAITS
    }

    /// The text of its file with the mistake in it.
    pub(crate) fn apply(&self, text: &str) -> String {
        apply(text, &self.edits, 0..text.len())
    }
}

/// `text[within]` with the edits that lie in it.
fn apply(text: &str, edits: &[Edit], within: Range<usize>) -> String {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| edit.at.start);
    let (mut result, mut at) = (String::new(), within.start);
    for edit in edits {
        result.push_str(&text[at..edit.at.start]);
        result.push_str(&edit.to);
        at = edit.at.end;
    }
    result.push_str(&text[at..within.end]);
    result
}

/// The fields, in all files, that only count or steer: by their types nothing depends on what they come to.
pub(crate) fn figures(sources: &[Source]) -> Result<HashSet<String>, Failure> {
    #[derive(Default)]
    struct Figures(HashSet<String>);
    impl<'ast> Visit<'ast> for Figures {
        fn visit_field(&mut self, field: &'ast syn::Field) {
            let syn::Type::Path(path) = &field.ty else { return };
            let is_figure = path.path.segments.last().is_some_and(|last| last.ident == "Tally" || last.ident == "Hint");
            self.0.extend(field.ident.as_ref().filter(|_| is_figure).map(ToString::to_string));
        }
    }
    let mut figures = Figures::default();
    for source in sources {
        figures.visit_file(&parsed(source)?);
    }
    Ok(figures.0)
}

fn parsed(source: &Source) -> Result<syn::File, Failure> {
    syn::parse_file(&source.text).map_err(|error| Failure::new(format!("{}: {error}", source.path)))
}

/// All mutants of a file, in the order of their lines. `figures`: see [`figures`].
pub(crate) fn mutants(source: &Source, figures: &HashSet<String>) -> Result<Vec<Mutant>, Failure> {
    let file = parsed(source)?;
    let mut maker = Maker {
        source,
        function: Vec::new(),
        owner: String::new(),
        public: public(&file),
        of_trait: None,
        tags: tags::Tags::of(&file),
        figures,
        ordinals: BTreeMap::new(),
        made: Vec::new(),
    };
    maker.visit_file(&file);
    let mut made = maker.made;
    made.sort_by_key(|mutant| mutant.line);
    Ok(made)
}

struct Maker<'a> {
    source: &'a Source,
    /// The functions around, outermost first.
    function: Vec<String>,
    /// The type whose `impl` is around.
    owner: String,
    /// The types that are public.
    public: HashSet<String>,
    /// The trait that this `impl` is of.
    of_trait: Option<String>,
    tags: tags::Tags,
    figures: &'a HashSet<String>,
    ordinals: BTreeMap<(String, String), usize>,
    made: Vec<Mutant>,
}

impl Maker<'_> {
    fn text(&self, at: &Range<usize>) -> &str {
        &self.source.text[at.clone()]
    }

    fn text_of(&self, node: &impl Spanned) -> &str {
        self.text(&range(node.span()))
    }

    /// Adds a mutant that is another value of an expression. `shown` is what its description shows.
    fn add_value(&mut self, kind: impl Into<String>, shown: &impl Spanned, at: Range<usize>, to: String) {
        let choice = Choice::value(at.clone(), &to);
        self.add(kind, shown, vec![(at, to)], Some(choice));
    }

    /// Adds a mutant that does something else instead of a statement.
    fn add_statement(&mut self, kind: impl Into<String>, shown: &impl Spanned, at: Range<usize>, to: String) {
        let choice = Choice::statement(at.clone(), &to);
        self.add(kind, shown, vec![(at, to)], Some(choice));
    }

    /// Adds a mutant.
    fn add(
        &mut self,
        kind: impl Into<String>,
        shown: &impl Spanned,
        edits: Vec<(Range<usize>, String)>,
        choice: Option<Choice>,
    ) {
        let (Some(function), kind) = (self.function.last(), kind.into()) else { return };
        let edits: Vec<Edit> = edits.into_iter().map(|(at, to)| Edit { at, to }).collect();
        // The description is about the whole that is shown, or about more, if the edits reach further.
        let mut whole = range(shown.span());
        for edit in &edits {
            whole = whole.start.min(edit.at.start)..whole.end.max(edit.at.end);
        }
        let before = self.text(&whole).to_string();
        let after = apply(&self.source.text, &edits, whole);
        if before == after {
            return;
        }
        let function = if self.owner.is_empty() { function.clone() } else { format!("{}::{function}", self.owner) };
        let ordinal = self.ordinals.entry((function.clone(), kind.clone())).or_default();
        *ordinal += 1;
        let path = &self.source.path;
        self.made.push(Mutant {
            id: format!("{path}/{function}/{kind}/{ordinal}"),
            file: path.clone(),
            function,
            kind,
            line: shown.span().start().line,
            before: on_one_line(&before),
            after: on_one_line(&after),
            edits,
            choice,
        });
    }

    fn in_function(&mut self, name: String, walk: impl FnOnce(&mut Self)) {
        self.function.push(name);
        walk(self);
        self.function.pop();
    }
}

/// The types that a file makes public.
fn public(file: &syn::File) -> HashSet<String> {
    let public = file.items.iter().filter_map(|item| match item {
        Item::Struct(item) if matches!(item.vis, syn::Visibility::Public(_)) => Some(item.ident.to_string()),
        _ => None,
    });
    public.collect()
}

/// The trait that an `impl` is of.
pub(crate) fn of_trait(item: &ItemImpl) -> Option<String> {
    item.trait_.as_ref().and_then(|(_, path, _)| Some(path.segments.last()?.ident.to_string()))
}

/// Where a node is in the text.
fn range(span: Span) -> Range<usize> {
    span.byte_range()
}

/// A description, without comments and line ends.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

impl<'ast> Visit<'ast> for Maker<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[_] = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            _ => &[],
        };
        if is_compiled(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        visit::visit_item_mod(self, module);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let owner = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
            _ => String::new(),
        };
        // What `Debug` prints is nobody's order.
        let of_trait = of_trait(item);
        if of_trait.as_ref().is_some_and(|of| of == "Debug") {
            return;
        }
        let before = (std::mem::replace(&mut self.owner, owner), std::mem::replace(&mut self.of_trait, of_trait));
        visit::visit_item_impl(self, item);
        (self.owner, self.of_trait) = before;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.in_function(item.sig.ident.to_string(), |maker| visit::visit_item_fn(maker, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_compiled(&item.attrs) {
            self.in_function(item.sig.ident.to_string(), |maker| {
                maker.call(item);
                visit::visit_impl_item_fn(maker, item);
            });
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if is_compiled(&item.attrs) {
            self.in_function(item.sig.ident.to_string(), |maker| visit::visit_trait_item_fn(maker, item));
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.statements(&block.stmts);
        visit::visit_block(self, block);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        visit::visit_stmt(self, statement);
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        match expression {
            Expr::MethodCall(call) => self.atomic(call),
            Expr::Call(call) => self.fence(call),
            Expr::Path(path) => self.tag(path),
            _ => {}
        }
        visit::visit_expr(self, expression);
    }

    /// Patterns name tags too, but are no transitions.
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}

    fn visit_type(&mut self, _: &'ast syn::Type) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &str, text: &str) -> Vec<(String, String)> {
        let source = Source { path: path.to_string(), text: text.to_string() };
        let after = |mutant: &Mutant| (mutant.id.clone(), mutant.apply(text));
        let figures = figures(std::slice::from_ref(&source)).unwrap();
        mutants(&source, &figures).unwrap().iter().map(after).collect()
    }

    fn applied(made: &[(String, String)], id: &str) -> String {
        let names: Vec<_> = made.iter().map(|(name, _)| name).collect();
        made.iter().find(|(name, _)| name == id).unwrap_or_else(|| panic!("no {id} in {names:#?}")).1.clone()
    }

    #[test]
    fn an_order_is_weakened_by_every_step() {
        let made =
            made("a.rs", "impl A { fn f(&self) -> u64 { self.0.compare_exchange(1, 2, AcqRel, Acquire).unwrap() } }");
        for (kind, call) in [
            ("success-to-Acquire", "compare_exchange(1, 2, crate::sync::Acquire, Acquire)"),
            ("success-to-Release", "compare_exchange(1, 2, crate::sync::Release, Acquire)"),
            ("success-to-Relaxed", "compare_exchange(1, 2, crate::sync::Relaxed, Acquire)"),
            ("failure-to-Relaxed", "compare_exchange(1, 2, AcqRel, crate::sync::Relaxed)"),
            ("in-two-steps", "place.store(to, crate::sync::Release); Ok(now)"),
        ] {
            assert!(applied(&made, &format!("a.rs/A::f/{kind}/1")).contains(call), "{kind}");
        }
        assert_eq!(made.len(), 5);
    }

    #[test]
    fn what_is_not_compiled_has_no_mutants() {
        let text = "#[cfg(test)] mod tests { fn f() { X.store(1, Release); } }\n\
                    #[cfg(loom)] fn g() { X.store(1, Release); }\n\
                    impl A { #[cfg(feature = \"std\")] fn f(&self) { self.0.store(1, Release); } }";
        assert_eq!(made("a.rs", text), []);
    }

    #[test]
    fn statements_go_and_change_places() {
        let made = made("a.rs", "fn f(a: &A) { a.mark(); fence(SeqCst); if a.is_closed() { return; } a.wake(); }");
        assert!(!applied(&made, "a.rs/f/without-mark/1").contains("a.mark()"));
        assert!(!applied(&made, "a.rs/f/without-fence/1").contains("fence"));
        assert!(!applied(&made, "a.rs/f/without-recheck/1").contains("is_closed"));
        assert!(applied(&made, "a.rs/f/mark-after-fence/1").contains("fence(SeqCst); a.mark();"));
        assert!(applied(&made, "a.rs/f/fence-to-AcqRel/1").contains("fence(crate::sync::AcqRel)"));
    }

    #[test]
    fn what_nobody_sees_does_not_change_places() {
        let text = "struct A { left: Hint, at: AtomicU64 } fn f(a: &A, mut n: u64) { a.mark(); n += 1; a.left.count(); a.wake(); \
                    prefetch(a); a.mark(); let m = n; a.look(m); }";
        let made = made("a.rs", text);
        assert!(made.iter().all(|(id, _)| !id.contains("after")), "{made:#?}");
        assert!(!applied(&made, "a.rs/f/without-count/1").contains("count"));
    }

    #[test]
    fn a_statement_does_not_pass_what_it_needs() {
        let made = made("a.rs", "fn f(a: &A) { let b = a.claim(); b.open(); }");
        assert!(made.iter().all(|(id, _)| !id.contains("after")), "{made:#?}");
    }

    #[test]
    fn a_pin_holds_for_one_use_or_not_at_all() {
        let made =
            made("a.rs", "fn f(a: &A) { let guard = a.pin(); a.look(&guard); let _pinned = a.pin(); a.look_too(); }");
        let each = applied(&made, "a.rs/f/pin-for-each-use/1");
        assert!(each.contains("a.look(&a.pin());") && !each.contains("guard"), "{each}");
        assert!(applied(&made, "a.rs/f/pin-ends-at-once/1").contains("drop(a.pin());"));
    }

    #[test]
    fn a_public_call_refuses_or_only_says_that_it_did() {
        let text = "impl A { pub fn f(&self) -> Result<()> { self.g() } fn g(&self) -> Result<()> { Ok(()) } \
                    pub fn h(&self) -> Result<u64> { Ok(7) } pub fn i(&self) -> PageCount { PageCount(2) } pub fn j(&self) {} }";
        let made = made("a.rs", text);
        assert!(applied(&made, "a.rs/A::f/refuses/1").contains("{ return Err(crate::Status::Canceled); self.g() }"));
        assert!(applied(&made, "a.rs/A::f/does-nothing/1").contains("{ return Ok(()); self.g() }"));
        assert!(applied(&made, "a.rs/A::h/refuses/1").contains("{ return Err(crate::Status::Canceled); Ok(7) }"));
        assert!(applied(&made, "a.rs/A::i/says-one/1").contains("{ return crate::PageCount(1); PageCount(2) }"));
        assert!(applied(&made, "a.rs/A::j/waits-for-the-stopped/1").contains("{ while stopped::one_has() {}}"));
        assert_eq!(made.len(), 17, "f, h and i do so from the second time on, beside others, and elsewhere, too");
    }

    #[test]
    fn an_end_does_nothing_or_waits_for_one_who_is_stopped() {
        let made = made(
            "a.rs",
            "pub struct B; impl Drop for A { fn drop(&mut self) {} } impl Drop for B { fn drop(&mut self) {} } \
                  impl Clone for A { fn clone(&self) -> A { A } }",
        );
        assert!(applied(&made, "a.rs/A::drop/does-nothing/1").contains("{ return;}"));
        assert!(applied(&made, "a.rs/B::drop/does-nothing-beside/1").contains("{ return;}"));
        assert!(applied(&made, "a.rs/A::drop/waits-for-the-stopped/1").contains("while stopped::one_has()"));
        assert!(applied(&made, "a.rs/B::drop/does-nothing-elsewhere/1").contains("{ return;}"));
        assert_eq!(made.len(), 6, "nobody is beside the end of what is not public");
    }

    #[test]
    fn tags_and_flags_are_those_of_the_page_word() {
        let text = "const TAG: u64 = 0xf; const EMPTY: u64 = 0; const DIRTY: u64 = 8; const CLEAN: u64 = 4;\n\
                    const PIN: u64 = 1 << 6; fn f(w: u64) -> u64 { (w & !TAG) | DIRTY | PIN }";
        let made = made("slot.rs", text);
        assert!(applied(&made, "slot.rs/f/DIRTY-is-CLEAN/1").contains("| CLEAN | PIN"));
        assert!(applied(&made, "slot.rs/f/DIRTY-is-EMPTY/1").contains("| EMPTY | PIN"));
        assert!(applied(&made, "slot.rs/f/without-PIN/1").contains("| DIRTY | 0"));
        assert_eq!(made.len(), 3);
    }
}
