//! The transitions of the page word: each tag in them exchanged for another, each flag left out.
//!
//! A tag is a private `u64` constant of slot.rs that is a small number, and a flag one that is a
//! single bit. Patterns and constants are left alone: they say what a word means, not what it becomes.

use syn::{Expr, ExprPath, File, Item, Lit, Visibility};

use super::{Maker, TAGS, range};
use syn::spanned::Spanned;

/// The names, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Tags {
    tags: Vec<String>,
    flags: Vec<String>,
}

/// A tag is less; `TAG` itself is the mask.
const MASK: u64 = 0xf;

impl Tags {
    pub(super) fn of(file: &File) -> Self {
        let mut found = Self::default();
        for item in &file.items {
            let Item::Const(constant) = item else { continue };
            let is_word = matches!(&*constant.ty, syn::Type::Path(path) if path.path.is_ident("u64"));
            if !is_word || !matches!(constant.vis, Visibility::Inherited) {
                continue;
            }
            match &*constant.expr {
                Expr::Lit(literal) => {
                    if let Lit::Int(number) = &literal.lit
                        && number.base10_parse::<u64>().is_ok_and(|number| number < MASK)
                    {
                        found.tags.push(constant.ident.to_string());
                    }
                }
                Expr::Binary(binary)
                    if matches!(binary.op, syn::BinOp::Shl(_)) && matches!(&*binary.left, Expr::Lit(_)) =>
                {
                    found.flags.push(constant.ident.to_string());
                }
                _ => {}
            }
        }
        found
    }
}

impl Maker<'_> {
    pub(super) fn tag(&mut self, path: &ExprPath) {
        if self.source.path != TAGS {
            return;
        }
        let Some(name) = path.path.get_ident().map(ToString::to_string) else { return };
        if let Some(at) = self.tags.tags.iter().position(|tag| *tag == name) {
            // The next two, around: enough to be another state, without all of them.
            for step in 1..=2 {
                let other = self.tags.tags[(at + step) % self.tags.tags.len()].clone();
                self.add_value(format!("{name}-is-{other}"), path, range(path.span()), other);
            }
        } else if self.tags.flags.contains(&name) {
            self.add_value(format!("without-{name}"), path, range(path.span()), "0".to_string());
        }
    }
}
