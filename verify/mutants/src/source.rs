//! The source of the core, as the models compile it: every module that lib.rs leads to, without what
//! a `cfg` takes away under loom, or has only there.

use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Meta, Token, punctuated::Punctuated};

use crate::failure::Failure;

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its path below `core/src`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Modules without mutants: the facade, which the models replace; and those that share nothing between
/// threads, which the behaviour tests hold.
const WITHOUT: [&str; 5] = ["sync", "observer", "packet", "status", "units"];

/// The files of the core, in the order in which lib.rs names them.
pub(crate) fn read(core: &Path) -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    let root = core.join("src");
    let mut left = vec![(root.clone(), PathBuf::from("lib.rs"))];
    while let Some((folder, path)) = left.pop() {
        let name = path.to_string_lossy().into_owned();
        let text =
            std::fs::read_to_string(root.join(&path)).map_err(|error| Failure::file(&root.join(&path), &error))?;
        let parsed = syn::parse_file(&text).map_err(|error| Failure::new(format!("{name}: {error}")))?;
        let mut inner = Vec::new();
        for item in &parsed.items {
            if let Item::Mod(module) = item
                && module.content.is_none()
                && is_compiled(&module.attrs)
                && !WITHOUT.iter().any(|name| module.ident == name)
            {
                let flat = folder.join(format!("{}.rs", module.ident));
                let deep = folder.join(module.ident.to_string());
                let (folder, file) = if flat.exists() { (deep, flat) } else { (deep.clone(), deep.join("mod.rs")) };
                let file = file.strip_prefix(&root).unwrap_or(&file).to_path_buf();
                inner.push((folder, file));
            }
        }
        left.extend(inner.into_iter().rev());
        found.push(Source { path: name, text });
    }
    Ok(found)
}

/// Whether the `cfg`s of an item let it be under loom, and not only there.
pub(crate) fn is_compiled(attributes: &[Attribute]) -> bool {
    attributes.iter().all(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().map_or(true, |meta| holds(&meta, true) && holds(&meta, false))
        }
        _ => true,
    })
}

fn holds(predicate: &Meta, under_loom: bool) -> bool {
    let parts = |list: &syn::MetaList| -> Vec<bool> {
        let all = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        all.map(|all| all.iter().map(|part| holds(part, under_loom)).collect()).unwrap_or_default()
    };
    match predicate {
        Meta::Path(path) => path.is_ident("loom") && under_loom,
        Meta::List(list) if list.path.is_ident("not") => parts(list).iter().all(|part| !part),
        Meta::List(list) if list.path.is_ident("any") => parts(list).contains(&true),
        Meta::List(list) => parts(list).iter().all(|part| *part),
        // A feature, or the target's: the models have no features, and mutants leave the rest alone.
        Meta::NameValue(_) => false,
    }
}
