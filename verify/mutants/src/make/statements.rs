//! Statements: each call whose value nobody uses left out, or exchanged with its neighbour.
//!
//! Seals, marks, fences, wake-ups, withdrawals, `defer` and `drop` are all such calls. Besides:
//! - a *re-check*, an `if` that asks something and then only leaves, is left out;
//! - a *pin* whose guard has a name is made anew at each use, so that it holds for one call only; one
//!   that has none ends at once;
//! - what is *deferred* is done at once.
//!
//! Two neighbours are exchanged if one of them is a call as above, or an atomic access, and the second
//! does not use what the first one names. Some exchanges are no mistakes whatever the program is, and are not made:
//! - with a statement that calls nothing and does not leave: it has to do with local variables only, so nobody else
//!   sees when it is done. The other must have nothing to do with these variables.
//! - of a call that counts in a figure that nothing depends on, a `Tally` or a `Hint` of `core/src/sync`: what such a
//!   type says of itself is that any value of it is right, at any time.
//!
//! For the same reason a `prefetch`, which changes nothing, is not left out.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Expr, ExprField, ExprMethodCall, Local, Member, Pat, Stmt};

use super::{Choice, Maker, Part, range};
use crate::source::is_compiled;

impl Maker<'_> {
    pub(super) fn statements(&mut self, statements: &[Stmt]) {
        for (at, statement) in statements.iter().enumerate() {
            if !is_compiled(attributes(statement)) {
                continue;
            }
            self.remove(statement);
            self.pin(statement, &statements[at + 1..]);
            self.defer(statement);
            if let Some(next) = statements.get(at + 1) {
                self.exchange(statement, next);
            }
        }
    }

    fn remove(&mut self, statement: &Stmt) {
        let here = range(statement.span());
        match statement {
            Stmt::Expr(Expr::If(recheck), _)
                if recheck.else_branch.is_none() && leaves(&recheck.then_branch.stmts) && asks(&recheck.cond) =>
            {
                self.add_statement("without-recheck", &recheck.cond, here, String::new());
            }
            _ => {
                if let Some(name) = called(statement)
                    && name != "prefetch"
                {
                    self.add_statement(format!("without-{name}"), statement, here, String::new());
                }
            }
        }
    }

    fn pin(&mut self, statement: &Stmt, rest: &[Stmt]) {
        let Stmt::Local(Local { pat, init: Some(init), .. }) = statement else { return };
        let Expr::MethodCall(pin) = &*init.expr else { return };
        if pin.method != "pin" {
            return;
        }
        let text = self.text_of(pin).to_string();
        let Pat::Ident(name) = pat else { return };
        let name = name.ident.to_string();
        let mut uses = Uses { name: &name, found: Vec::new() };
        for statement in rest {
            uses.visit_stmt(statement);
        }
        if uses.found.is_empty() {
            let (here, at) = (range(pin.span()), range(statement.span()));
            let parts = vec![
                Part::Text(format!("let {name} = if ")),
                Part::CHOSEN,
                Part::Text(format!(" {{ drop({text}); None }} else {{ Some(")),
                Part::Here(here),
                Part::Text(") };".to_string()),
            ];
            let choice = Choice { at: at.clone(), parts };
            self.add("pin-ends-at-once", statement, vec![(at, format!("drop({text});"))], Some(choice));
        } else {
            let mut edits = vec![(range(statement.span()), String::new())];
            edits.extend(uses.found.into_iter().map(|at| (at, text.clone())));
            self.add("pin-for-each-use", pin, edits, None);
        }
    }

    fn defer(&mut self, statement: &Stmt) {
        let (Stmt::Expr(expression, _), here) = (statement, range(statement.span())) else { return };
        if let Expr::MethodCall(ExprMethodCall { method, args, .. }) = unwrapped(expression)
            && method == "defer"
            && let Some(deferred) = args.first()
        {
            let text = format!("drop(({})());", self.text_of(deferred));
            self.add_statement("deferred-at-once", statement, here, text);
        }
    }

    fn exchange(&mut self, first: &Stmt, second: &Stmt) {
        if !is_compiled(attributes(second)) || !may_move(first) || is_local(first) || is_local(second) {
            return;
        }
        if is_private(first, second) || is_private(second, first) {
            return;
        }
        if [first, second].into_iter().any(|statement| self.is_figure(statement)) {
            return;
        }
        let acts = |statement: &Stmt| called(statement).is_some() || is_atomic(statement);
        if !acts(first) && !acts(second) {
            return;
        }
        let mut names = Names::default();
        names.visit_stmt(first);
        if names.bound.iter().any(|name| mentions(second, name)) {
            return;
        }
        let label = |statement: &Stmt| called(statement).unwrap_or_else(|| kind(statement).to_string());
        let name = format!("{}-after-{}", label(first), label(second));
        let (one, two) = (range(first.span()), range(second.span()));
        let texts = (self.text(&one).to_string(), self.text(&two).to_string());
        match second {
            // The value of the block is kept until the other has been done.
            Stmt::Expr(tail, None)
                if matches!(unwrapped(tail), Expr::MethodCall(_) | Expr::Call(_)) && !is_made(tail) =>
            {
                let text = format!("let value = {};\n{}\nvalue", texts.1, texts.0);
                self.add_statement(name, first, one.start..two.end, text);
            }
            Stmt::Expr(tail, None) if !matches!(tail, Expr::If(_) | Expr::While(_) | Expr::ForLoop(_)) => {}
            _ if may_move(second) => {
                let choice = self.exchanged(first, second);
                self.add(name, first, vec![(one, texts.1), (two, texts.0)], choice);
            }
            _ => {}
        }
    }
}

impl Maker<'_> {
    /// Whether a statement only calls a method of a figure, or has the processor fetch something.
    fn is_figure(&self, statement: &Stmt) -> bool {
        let Stmt::Expr(Expr::MethodCall(call), Some(_)) = statement else {
            return called(statement).is_some_and(|name| name == "prefetch");
        };
        let Expr::Field(ExprField { member: Member::Named(name), .. }) = &*call.receiver else { return false };
        self.figures.contains(&name.to_string())
    }

    /// Two neighbours in either order. `None`: they bind in a way that does not allow it.
    fn exchanged(&self, first: &Stmt, second: &Stmt) -> Option<Choice> {
        let (one, two) = (range(first.span()), range(second.span()));
        let texts = (self.text(&one), self.text(&two));
        let at = one.start..two.end;
        let text = |text: &str| Part::Text(text.to_string());
        let parts = match (binds(first), binds(second)) {
            (false, false) => return Some(Choice::statement(at, &format!("{} {}", texts.1, texts.0))),
            // What binds stays, and the other comes before it or after it.
            (false, true) => vec![
                text("if !"),
                Part::CHOSEN,
                text(" { "),
                Part::Here(one),
                text(" } "),
                Part::Here(two),
                text(" if "),
                Part::CHOSEN,
                Part::Text(format!(" {{ {} }}", texts.0)),
            ],
            (true, false) => vec![
                text("if "),
                Part::CHOSEN,
                Part::Text(format!(" {{ {} }} ", texts.1)),
                Part::Here(one),
                text(" if !"),
                Part::CHOSEN,
                text(" { "),
                Part::Here(two),
                text(" }"),
            ],
            (true, true) => {
                let (one, two) = (self.bound(first)?, self.bound(second)?);
                let values = (self.text(&one.value), self.text(&two.value));
                vec![
                    Part::Text(format!("let ({}, {}) = if ", one.pattern, two.pattern)),
                    Part::CHOSEN,
                    Part::Text(format!(
                        " {{ let mistaken_2{} = {}; let mistaken_1{} = {}; (mistaken_1, mistaken_2) }} \
                         else {{ let mistaken_1{} = ",
                        two.of_type, values.1, one.of_type, values.0, one.of_type
                    )),
                    Part::Here(one.value),
                    Part::Text(format!("; let mistaken_2{} = ", two.of_type)),
                    Part::Here(two.value),
                    text("; (mistaken_1, mistaken_2) };"),
                ]
            }
        };
        Some(Choice { at, parts })
    }

    /// What a `let` without `else` binds, and to what.
    fn bound(&self, statement: &Stmt) -> Option<Bound<'_>> {
        let Stmt::Local(Local { pat, init: Some(init), .. }) = statement else { return None };
        if init.diverge.is_some() {
            return None;
        }
        let value = range(init.expr.span());
        Some(match pat {
            Pat::Type(typed) => {
                let of_type = format!(": {}", self.text_of(&typed.ty));
                Bound { pattern: self.text_of(&typed.pat), of_type, value }
            }
            _ => Bound { pattern: self.text_of(pat), of_type: String::new(), value },
        })
    }
}

/// The parts of a `let`.
struct Bound<'a> {
    pattern: &'a str,
    /// With the colon, or nothing.
    of_type: String,
    value: Range<usize>,
}

/// Whether a statement binds something for those after it.
fn binds(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Local(local) if !is_wild(&local.pat))
}

fn attributes(statement: &Stmt) -> &[syn::Attribute] {
    match statement {
        Stmt::Local(local) => &local.attrs,
        Stmt::Expr(Expr::MethodCall(call), _) => &call.attrs,
        Stmt::Expr(Expr::Call(call), _) => &call.attrs,
        Stmt::Expr(Expr::If(expression), _) => &expression.attrs,
        _ => &[],
    }
}

/// The expression inside `?`, `unsafe { }` and parentheses.
fn unwrapped(expression: &Expr) -> &Expr {
    match expression {
        Expr::Try(inner) => unwrapped(&inner.expr),
        Expr::Paren(inner) => unwrapped(&inner.expr),
        Expr::Await(inner) => unwrapped(&inner.base),
        Expr::Unsafe(inner) => match &inner.block.stmts[..] {
            [Stmt::Expr(inner, _)] => unwrapped(inner),
            _ => expression,
        },
        _ => expression,
    }
}

/// The name of what a statement calls, if it only calls.
fn called(statement: &Stmt) -> Option<String> {
    let expression = match statement {
        Stmt::Expr(expression, Some(_)) => expression,
        Stmt::Local(Local { pat, init: Some(init), .. }) if is_wild(pat) => &init.expr,
        _ => return None,
    };
    match unwrapped(expression) {
        Expr::MethodCall(call) => Some(call.method.to_string()),
        Expr::Call(call) => match &*call.func {
            Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn is_wild(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        Pat::Type(typed) => is_wild(&typed.pat),
        _ => false,
    }
}

const fn kind(statement: &Stmt) -> &'static str {
    match statement {
        Stmt::Local(_) => "let",
        Stmt::Expr(Expr::If(_), _) => "if",
        Stmt::Expr(Expr::While(_) | Expr::Loop(_) | Expr::ForLoop(_), _) => "loop",
        Stmt::Expr(Expr::Match(_), _) => "match",
        Stmt::Expr(_, None) => "value",
        Stmt::Expr(..) => "statement",
        Stmt::Item(_) | Stmt::Macro(_) => "item",
    }
}

/// Whether a statement may change places: one that ends here, and does not leave.
fn may_move(statement: &Stmt) -> bool {
    match statement {
        Stmt::Local(local) => local.init.is_some(),
        Stmt::Expr(Expr::Return(_) | Expr::Break(_) | Expr::Continue(_), _) => false,
        Stmt::Expr(Expr::If(_) | Expr::While(_) | Expr::ForLoop(_) | Expr::Loop(_) | Expr::Match(_), None)
        | Stmt::Expr(_, Some(_)) => true,
        Stmt::Expr(_, None) | Stmt::Item(_) | Stmt::Macro(_) => false,
    }
}

/// Whether an expression only makes a value of an enum or struct of what it is given.
fn is_made(expression: &Expr) -> bool {
    let Expr::Call(call) = expression else { return false };
    let Expr::Path(path) = &*call.func else { return false };
    path.path.segments.last().is_some_and(|last| last.ident.to_string().starts_with(char::is_uppercase))
}

/// Whether a statement only sets a local variable.
fn is_local(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Expr(Expr::Assign(assign), _) if matches!(&*assign.left, Expr::Path(_)))
}

/// Whether a statement has to do with local variables only, and the other one with none of these.
fn is_private(statement: &Stmt, other: &Stmt) -> bool {
    let mut acts = Acts::default();
    match statement {
        Stmt::Local(Local { init: Some(init), .. }) if init.diverge.is_none() => acts.visit_expr(&init.expr),
        Stmt::Expr(expression, Some(_)) => acts.visit_expr(expression),
        _ => return false,
    }
    !acts.acts && !acts.names.iter().any(|name| mentions(other, name))
}

/// Methods that only compute, whatever they are called on.
const COMPUTES: [&str; 9] =
    ["clamp", "div_ceil", "is_err", "is_none", "is_ok", "is_some", "max", "min", "saturating_sub"];

/// Whether an expression does more than compute, and the variables in it.
#[derive(Default)]
struct Acts {
    acts: bool,
    names: Vec<String>,
}

impl<'ast> Visit<'ast> for Acts {
    fn visit_expr(&mut self, expression: &'ast Expr) {
        self.acts |= match expression {
            Expr::MethodCall(call) => !COMPUTES.iter().any(|name| call.method == name),
            Expr::Call(_)
            | Expr::Macro(_)
            | Expr::Try(_)
            | Expr::Return(_)
            | Expr::Break(_)
            | Expr::Continue(_)
            | Expr::Await(_)
            | Expr::Index(_)
            | Expr::Unsafe(_)
            | Expr::Closure(_)
            | Expr::Loop(_)
            | Expr::While(_) => true,
            _ => false,
        };
        visit::visit_expr(self, expression);
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        self.names.extend(path.path.get_ident().map(ToString::to_string));
    }
}

/// Whether a block only leaves.
fn leaves(statements: &[Stmt]) -> bool {
    matches!(statements, [Stmt::Expr(Expr::Return(_) | Expr::Break(_) | Expr::Continue(_), _)])
}

/// Whether a condition calls something.
fn asks(condition: &Expr) -> bool {
    struct Calls(bool);
    impl<'ast> Visit<'ast> for Calls {
        fn visit_expr(&mut self, expression: &'ast Expr) {
            self.0 |= matches!(expression, Expr::MethodCall(_) | Expr::Call(_));
            visit::visit_expr(self, expression);
        }
    }
    let mut calls = Calls(false);
    calls.visit_expr(condition);
    calls.0
}

/// Whether a statement is a `let` or a call that accesses an atomic itself.
fn is_atomic(statement: &Stmt) -> bool {
    struct Atomics(bool);
    impl<'ast> Visit<'ast> for Atomics {
        fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
            let orders = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];
            self.0 |= path.path.segments.last().is_some_and(|last| orders.iter().any(|order| last.ident == order));
        }

        fn visit_block(&mut self, _: &'ast syn::Block) {}
    }
    let mut atomics = Atomics(false);
    atomics.visit_stmt(statement);
    atomics.0
}

/// The names that a statement binds for those after it.
#[derive(Default)]
struct Names {
    bound: Vec<String>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_pat_ident(&mut self, name: &'ast syn::PatIdent) {
        self.bound.push(name.ident.to_string());
    }

    /// What is bound inside an expression stays there.
    fn visit_expr(&mut self, _: &'ast Expr) {}
}

/// Whether a statement names a variable.
fn mentions(statement: &Stmt, name: &str) -> bool {
    let mut uses = Uses { name, found: Vec::new() };
    uses.visit_stmt(statement);
    !uses.found.is_empty()
}

/// The uses of a variable.
struct Uses<'a> {
    name: &'a str,
    found: Vec<Range<usize>>,
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if path.path.is_ident(self.name) {
            self.found.push(range(path.span()));
        }
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        // Not parsed: a name in there counts as a use, and cannot be replaced.
        if found.tokens.to_string().split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == self.name) {
            self.found.push(range(found.span()));
        }
    }
}
