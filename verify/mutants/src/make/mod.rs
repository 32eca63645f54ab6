//! Makes the mutants of a file: finds the places in the syntax tree, and edits the text there, so that
//! all the rest of the file stays as it is.
//!
//! A mutant's name is its file, function, kind, and which one of that kind in that function it is. So
//! it stays the same when other functions change.

mod atomics;
mod statements;
mod tags;

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr, ImplItemFn, Item, ItemFn, ItemImpl, ItemMod, Stmt, TraitItemFn};

use crate::failure::Failure;
use crate::source::{Source, is_compiled};

/// One mistake.
#[derive(Clone, Debug)]
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

/// All mutants of a file, in the order of their lines.
pub(crate) fn mutants(source: &Source) -> Result<Vec<Mutant>, Failure> {
    let file = syn::parse_file(&source.text).map_err(|error| Failure::new(format!("{}: {error}", source.path)))?;
    let mut maker = Maker {
        source,
        function: Vec::new(),
        owner: String::new(),
        tags: tags::Tags::of(&file),
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
    tags: tags::Tags,
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

    /// Adds a mutant. `shown` is what its description shows.
    fn add(&mut self, kind: impl Into<String>, shown: &impl Spanned, edits: Vec<(Range<usize>, String)>) {
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
        });
    }

    fn in_function(&mut self, name: String, walk: impl FnOnce(&mut Self)) {
        self.function.push(name);
        walk(self);
        self.function.pop();
    }
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
        let is_debug = |path: &syn::Path| path.segments.last().is_some_and(|last| last.ident == "Debug");
        if item.trait_.as_ref().is_some_and(|(_, path, _)| is_debug(path)) {
            return;
        }
        let before = std::mem::replace(&mut self.owner, owner);
        visit::visit_item_impl(self, item);
        self.owner = before;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.in_function(item.sig.ident.to_string(), |maker| visit::visit_item_fn(maker, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_compiled(&item.attrs) {
            self.in_function(item.sig.ident.to_string(), |maker| visit::visit_impl_item_fn(maker, item));
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
