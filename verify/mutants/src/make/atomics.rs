//! Atomic accesses: weaker orders, and read-modify-writes in two steps.
//!
//! | access | its order becomes |
//! | --- | --- |
//! | load | Acquire, Relaxed |
//! | store | Release, Relaxed |
//! | read-modify-write, and a compare-and-swap that succeeds | AcqRel, then Acquire or Release, then Relaxed |
//! | a compare-and-swap that fails | Acquire, Relaxed |
//! | fence | AcqRel; it is removed with the other [statements](super::statements) |

use syn::spanned::Spanned;
use syn::{Expr, ExprCall, ExprMethodCall};

use super::{Maker, range};

const ORDERS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

/// What an order is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Load,
    Store,
    Both,
}

/// All orders that are weaker.
fn weaker(order: &str, part: Part) -> &'static [&'static str] {
    match (part, order) {
        (Part::Load, "SeqCst") => &["Acquire", "Relaxed"],
        (Part::Store, "SeqCst") => &["Release", "Relaxed"],
        (Part::Both, "SeqCst") => &["AcqRel", "Acquire", "Release", "Relaxed"],
        (Part::Both, "AcqRel") => &["Acquire", "Release", "Relaxed"],
        (_, "Acquire" | "Release") => &["Relaxed"],
        _ => &[],
    }
}

/// The order that an argument is.
fn order(argument: &Expr) -> Option<&'static str> {
    let Expr::Path(path) = argument else { return None };
    let name = path.path.segments.last()?.ident.to_string();
    ORDERS.into_iter().find(|order| *order == name)
}

impl Maker<'_> {
    /// The mutants of a method call, if it is an atomic access.
    pub(super) fn atomic(&mut self, call: &ExprMethodCall) {
        let orders: Vec<(&Expr, &'static str)> =
            call.args.iter().filter_map(|argument| Some((argument, order(argument)?))).collect();
        let name = call.method.to_string();
        match (name.as_str(), &orders[..]) {
            ("load", [one]) => self.weaken(call, one, Part::Load, ""),
            ("store", [one]) => self.weaken(call, one, Part::Store, ""),
            ("compare_exchange" | "compare_exchange_weak", [success, failure]) => {
                self.weaken(call, success, Part::Both, "success-");
                self.weaken(call, failure, Part::Load, "failure-");
                self.split_compare_exchange(call, success.1, failure.1);
            }
            (_, [one]) => {
                self.weaken(call, one, Part::Both, "");
                self.split_read_modify_write(call, one.1);
            }
            _ => {}
        }
    }

    fn weaken(&mut self, call: &ExprMethodCall, (at, order): &(&Expr, &'static str), part: Part, which: &str) {
        for weaker in weaker(order, part) {
            self.add_value(format!("{which}to-{weaker}"), call, range(at.span()), named(weaker));
        }
    }

    /// A fence that orders less.
    pub(super) fn fence(&mut self, call: &ExprCall) {
        let Expr::Path(path) = &*call.func else { return };
        if path.path.segments.last().is_some_and(|last| last.ident == "fence")
            && let Some(argument) = call.args.first()
            && order(argument) == Some("SeqCst")
        {
            self.add_value("fence-to-AcqRel", call, range(argument.span()), named("AcqRel"));
        }
    }

    /// A compare-and-swap as a load and a store.
    fn split_compare_exchange(&mut self, call: &ExprMethodCall, success: &str, failure: &str) {
        let [from, to, ..] = &call.args.iter().map(|argument| self.text_of(argument)).collect::<Vec<_>>()[..] else {
            return;
        };
        let (place, failure) = (self.text_of(&call.receiver), named(failure));
        let store = named(store_order(success));
        let text = format!(
            "{{ let (place, from, to) = (&({place}), {from}, {to}); let now = place.load({failure}); \
             if now == from {{ place.store(to, {store}); Ok(now) }} else {{ Err(now) }} }}"
        );
        self.add_value("in-two-steps", call, range(call.span()), text);
    }

    /// Any other read-modify-write as a load and a store; one that changes nothing, as a load.
    fn split_read_modify_write(&mut self, call: &ExprMethodCall, order: &str) {
        let Some(operand) = call.args.first().map(|operand| self.text_of(operand)) else { return };
        let name = call.method.to_string();
        let to = match name.as_str() {
            "swap" => operand.to_string(),
            "fetch_or" => format!("now | ({operand})"),
            "fetch_and" => format!("now & ({operand})"),
            "fetch_add" => format!("now.wrapping_add({operand})"),
            "fetch_sub" => format!("now.wrapping_sub({operand})"),
            _ => return,
        };
        let place = self.text_of(&call.receiver);
        let load = named(if matches!(order, "AcqRel" | "Acquire" | "SeqCst") { "Acquire" } else { "Relaxed" });
        let (kind, text) = if operand == "0" && name != "swap" {
            ("as-a-load", format!("{place}.load({load})"))
        } else {
            let store = named(store_order(order));
            let text =
                format!("{{ let place = &({place}); let now = place.load({load}); place.store({to}, {store}); now }}");
            ("in-two-steps", text)
        };
        self.add_value(kind, call, range(call.span()), text);
    }
}

/// An order as any file may name it, whether it uses it otherwise or not.
fn named(order: &str) -> String {
    format!("crate::sync::{order}")
}

fn store_order(order: &str) -> &'static str {
    if matches!(order, "AcqRel" | "Release" | "SeqCst") { "Release" } else { "Relaxed" }
}
