//! What a Rust file may hold. Read as the compiler reads it, so that words in texts and comments are not mistaken for
//! code, and code in macros is not missed.

use super::{Broken, Rule};
use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::{
    Block, ImplItemFn, ItemFn, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

/// Most lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Most lines of a function, from its name to its end.
const FUNCTION_LINES_MAX: usize = 70;
/// Macros that leave something for later, or for debugging.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Words by which I/O, clocks, chance and tasks come into `model`.
const IMPURE: [&str; 8] =
    ["SystemTime", "Instant", "tokio", "async", "await", "OpenOptions", "TcpStream", "thread_rng"];

/// All that is wrong in one file.
pub(super) fn check(path: &str, text: &str) -> Vec<Broken> {
    let report = |line: usize, rule, what: String| Broken { path: path.into(), line, rule, what };
    let mut broken = vec![];
    if !text.starts_with("//!") {
        let what = "begins without `//!`: what it holds, why, and what it must never do";
        broken.push(report(1, Rule::Head, what.into()));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        broken.push(report(
            FILE_LINES_MAX + 1,
            Rule::FileLength,
            format!("{lines} lines, at most {FILE_LINES_MAX}"),
        ));
    }
    match syn::parse_file(text) {
        Ok(file) => {
            let mut functions = Functions::default();
            functions.visit_file(&file);
            broken.extend(
                functions.long.into_iter().map(|(line, what)| report(line, Rule::FunctionLength, what)),
            );
        }
        Err(error) => broken.push(report(line_of(error.span()), Rule::Syntax, error.to_string())),
    }
    if let Ok(tokens) = text.parse::<TokenStream>() {
        let mut words = Words { path, found: vec![] };
        words.walk(tokens, false);
        broken.extend(words.found.into_iter().map(|(line, rule, what)| report(line, rule, what)));
    }
    broken
}

fn line_of(span: Span) -> usize {
    span.start().line.max(1)
}

/// Functions that are too long.
#[derive(Default)]
struct Functions {
    long: Vec<(usize, String)>,
}

impl Functions {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let first = line_of(signature.fn_token.span());
        let lines = block.span().end().line + 1 - first;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("{} has {lines} lines, at most {FUNCTION_LINES_MAX}", signature.ident);
            self.long.push((first, what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Words that should not be there.
struct Words<'a> {
    path: &'a str,
    found: Vec<(usize, Rule, String)>,
}

impl Words<'_> {
    fn walk(&mut self, tokens: TokenStream, in_attribute: bool) {
        let all: Vec<TokenTree> = tokens.into_iter().collect();
        for (n, token) in all.iter().enumerate() {
            match token {
                TokenTree::Ident(word) => {
                    let next = all.get(n + 1);
                    self.judge(&word.to_string(), word.span(), next, in_attribute);
                }
                TokenTree::Group(group) => {
                    let hash = matches!(n.checked_sub(1).map(|i| &all[i]), Some(TokenTree::Punct(p)) if matches!(p.as_char(), '#' | '!'));
                    let attribute = group.delimiter() == Delimiter::Bracket && hash;
                    self.walk(group.stream(), in_attribute || attribute);
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self, word: &str, span: Span, next: Option<&TokenTree>, in_attribute: bool) {
        let line = line_of(span);
        let mut report = |rule, what: &str| self.found.push((line, rule, what.to_string()));
        let is_macro = matches!(next, Some(TokenTree::Punct(p)) if p.as_char() == '!');
        let in_sys = self.path.starts_with("crates/sys/");
        let in_model = self.path.starts_with("crates/model/src/");
        match word {
            "unsafe" if !in_sys => report(Rule::Unsafe, "unsafe code is in sys alone, behind a safe door"),
            "unsafe_code" if !in_sys => report(Rule::Unsafe, "unsafe code is allowed in sys alone"),
            "ignore" if in_attribute => report(Rule::Unfinished, "a test that is ignored proves nothing"),
            _ if is_macro && UNFINISHED.contains(&word) => {
                report(Rule::Unfinished, &format!("{word}! is for a desk, not for a house"));
            }
            _ if in_model && IMPURE.contains(&word) => {
                report(Rule::Pure, &format!("model is pure: {word} is an argument there"));
            }
            _ if word.ends_with("Manager") => {
                report(Rule::Name, &format!("{word} tells nothing: name it after what it is"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, Rule)> {
        check(path, text).into_iter().map(|b| (b.line, b.rule)).collect()
    }

    #[test]
    fn words() {
        let node = "crates/node/src/disk.rs";
        let model = "crates/model/src/disk.rs";
        for (path, text, wanted) in [
            (node, "//! Head.\nfn f() {}", None),
            (node, "fn f() {}", Some((1, Rule::Head))),
            (node, "//! Head.\nfn f() { unsafe { g() } }", Some((2, Rule::Unsafe))),
            (node, "//! Head.\nmacro_rules! m { () => { unsafe {} } }", Some((2, Rule::Unsafe))),
            (node, "//! Head.\n#![allow(unsafe_code)]", Some((2, Rule::Unsafe))),
            ("crates/sys/src/file.rs", "//! Head.\nfn f() { unsafe { g() } }", None),
            (node, "//! Head.\nfn f() { \"unsafe todo!()\"; } // unsafe", None),
            (node, "//! Head.\n\nfn f() { todo!() }", Some((3, Rule::Unfinished))),
            (node, "//! Head.\nfn f() { assert!(dbg!(true)) }", Some((2, Rule::Unfinished))),
            (node, "//! Head.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}", Some((3, Rule::Unfinished))),
            (node, "//! Head.\nfn f() { let ignore = todo; }", None),
            (node, "//! Head.\nstruct DiskManager;", Some((2, Rule::Name))),
            (node, "//! Head.\nfn f() {", Some((2, Rule::Syntax))),
            (node, "//! Head.\nasync fn f() {}", None),
            (model, "//! Head.\nasync fn f() {}", Some((2, Rule::Pure))),
            (model, "//! Head.\nuse std::time::SystemTime;", Some((2, Rule::Pure))),
        ] {
            assert_eq!(rules(path, text).first().copied(), wanted, "{path}: {text}");
        }
    }

    #[test]
    fn lengths() {
        let file = |lines: usize| format!("//! Head.{}", "\n//".repeat(lines - 1));
        assert_eq!(rules("a.rs", &file(FILE_LINES_MAX)), []);
        assert_eq!(rules("a.rs", &file(FILE_LINES_MAX + 1)), [(801, Rule::FileLength)]);
        for (before, after) in
            [("fn f() {", "}"), ("impl A { async fn f() {", "}}"), ("trait A { fn f() {", "}}")]
        {
            let function = |lines: usize| format!("//! Head.\n{before}{}{after}", "\n".repeat(lines - 1));
            assert_eq!(rules("a.rs", &function(FUNCTION_LINES_MAX)), [], "{before}");
            assert_eq!(
                rules("a.rs", &function(FUNCTION_LINES_MAX + 1)),
                [(2, Rule::FunctionLength)],
                "{before}"
            );
        }
    }
}
