//! What a record is valid for: a number for the contents of some files.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use crate::failure::Failure;

/// FNV-1a of the names and contents of all files below the given paths, in hexadecimal. It tells
/// versions apart, and need not withstand malice. Comments and the layout of Rust files do not count: a
/// record stays valid when an explanation changes. Neither do modules of tests, unless `tests`.
pub(crate) fn of(root: &Path, paths: &[&str], tests: bool) -> Result<String, Failure> {
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hash = NOTHING;
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file);
        hash = with(hash, name.to_string_lossy().as_bytes());
        let bytes = fs::read(file).map_err(|error| Failure::file(file, &error))?;
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        let tokens = std::str::from_utf8(&bytes).ok().filter(|_| is_rust).and_then(|text| text.parse().ok());
        hash = tokens.map_or_else(|| with(hash, &bytes), |tokens| with_tokens(hash, tokens, tests));
    }
    Ok(format!("{hash:016x}"))
}

/// The hash of what had this one, and of these tokens after it, but for documentation.
fn with_tokens(mut hash: u64, tokens: TokenStream, tests: bool) -> u64 {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        hash = match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' && tokens.next_if(is_documentation).is_some() => hash,
            TokenTree::Punct(mark)
                if !tests && mark.as_char() == '#' && tokens.next_if(is_only_for_tests).is_some() =>
            {
                // Up to the body of what the attribute is on.
                let _ = tokens.by_ref().find(|token| matches!(token, TokenTree::Group(_)));
                hash
            }
            TokenTree::Group(group) => {
                let hash = with(hash, format!("{:?}", group.delimiter()).as_bytes());
                with(with_tokens(hash, group.stream(), tests), b"end")
            }
            token => with(with(hash, token.to_string().as_bytes()), b" "),
        };
    }
    hash
}

/// Whether this is `[doc = ...]`, as a doc comment is to the compiler.
fn is_documentation(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    group.stream().into_iter().next().is_some_and(|first| matches!(first, TokenTree::Ident(name) if name == "doc"))
}

/// The hash of no bytes.
pub(crate) const NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what had this one, and of these bytes after it.
pub(crate) fn with(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| Failure::file(path, &error))? {
        collect(&entry.map_err(|error| Failure::file(path, &error))?.path(), files)?;
    }
    Ok(())
}

/// Whether this is `[cfg(test)]`, or `[cfg(all(test, ...))]`.
fn is_only_for_tests(token: &TokenTree) -> bool {
    let text = token.to_string().replace(char::is_whitespace, "");
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

#[cfg(test)]
mod tests {
    use super::{NOTHING, with_tokens};

    #[test]
    fn comments_and_layout_do_not_count() {
        let hash = |text: &str| with_tokens(NOTHING, text.parse().unwrap(), false);
        let plain = hash("fn f() { g(1); }");
        assert_eq!(plain, hash("/// Says so.\nfn f() {\n    // why\n    g(1);\n}"));
        assert_eq!(plain, hash("fn f() { g(1); } #[cfg(all(test, not(loom)))] mod tests { fn t() {} }"));
        assert_ne!(plain, hash("fn f() { g(2); }"));
        assert_ne!(plain, hash("fn f() { } g(1);"));
        assert_ne!(plain, hash("#[cold] fn f() { g(1); }"));
    }
}
