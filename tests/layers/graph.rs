//! The dependencies between the source files of a crate, found by parsing them.
//!
//! A dependency leads from the file that has a path (`crate::…`, `super::…`, `self::…`, or one that begins with a child module
//! or an imported name) to the file that defines what the path names. Re-exports are followed: a file that
//! uses `publish::Refusal` depends on the file that defines it, and a `pub use` of a module's own child is not a dependency.
//! Paths in the arguments of macros count. Macros themselves, methods called on a value, and doc links are not found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Names of nested modules, from the root of the crate.
pub type ModulePath = Vec<String>;

/// A use of one file by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// The file that uses the other one, and the line of the use.
    pub from: String,
    pub line: usize,
    pub to: String,
    /// The path as written.
    pub path: String,
    /// The top module of the written path, before re-exports are followed.
    pub through: String,
}

/// A source file: its name below `src` and its text.
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

#[derive(Default)]
struct Scope {
    file: String,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// Local name → written path.
    imports: BTreeMap<String, Vec<String>>,
}

struct Reference {
    file: String,
    scope: ModulePath,
    path: Vec<String>,
    line: usize,
    /// A `pub use`.
    is_export: bool,
}

/// Collects modules and references, except items for tests (`#[cfg(test)]`).
struct Reader {
    scopes: BTreeMap<ModulePath, Scope>,
    references: Vec<Reference>,
    file: String,
    scope: ModulePath,
}

/// All dependencies of a crate, except those of files that only tests use.
pub fn dependencies(sources: &[Source<'_>]) -> Vec<Dependency> {
    let mut reader = Reader { scopes: BTreeMap::new(), references: Vec::new(), file: String::new(), scope: Vec::new() };
    for source in sources {
        let file = syn::parse_file(source.text).unwrap_or_else(|error| panic!("{}: {error}", source.name));
        reader.file = source.name.to_owned();
        reader.scope = module_of(source.name);
        reader.scopes.entry(reader.scope.clone()).or_default().file = source.name.to_owned();
        reader.visit_file(&file);
    }
    let scopes = &reader.scopes;
    let is_declared = |module: &[String]| {
        (0..module.len())
            .all(|depth| scopes.get(&module[..depth]).is_some_and(|scope| scope.children.contains(&module[depth])))
    };
    let mut dependencies = BTreeSet::new();
    for reference in reader.references.iter().filter(|reference| is_declared(&reference.scope)) {
        let Some(absolute) = absolute(scopes, &reference.scope, &reference.path) else { continue };
        let Some(to) = defined_in(scopes, &absolute, 0) else { continue };
        let of_own_child = absolute.len() > reference.scope.len() && absolute.starts_with(&reference.scope);
        let through = absolute.first().cloned().unwrap_or_default();
        // An item that a file uses through an upper module counts as a dependency on that module, even if the file defines it.
        let is_own = to == reference.file && Some(&through) == reference.scope.first();
        if is_own || reference.is_export && of_own_child {
            continue;
        }
        dependencies.insert(Dependency {
            from: reference.file.clone(),
            line: reference.line,
            to,
            path: reference.path.join("::"),
            through,
        });
    }
    dependencies.into_iter().collect()
}

/// The cycles among files: a shortest one for each group of files that use one another.
pub fn cycles(dependencies: &[Dependency]) -> Vec<Vec<&Dependency>> {
    let mut out: BTreeMap<&str, Vec<&Dependency>> = BTreeMap::new();
    for dependency in dependencies {
        out.entry(&dependency.from).or_default().push(dependency);
    }
    let (mut cycles, mut seen) = (Vec::new(), BTreeSet::new());
    for start in out.keys() {
        let Some(cycle) = shortest_cycle(start, &out) else { continue };
        let files: BTreeSet<&str> = cycle.iter().map(|dependency| dependency.from.as_str()).collect();
        if seen.insert(files) {
            cycles.push(cycle);
        }
    }
    cycles
}

fn shortest_cycle<'a>(start: &str, out: &BTreeMap<&str, Vec<&'a Dependency>>) -> Option<Vec<&'a Dependency>> {
    let mut reached_by: BTreeMap<&str, &'a Dependency> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        for dependency in out.get(file).into_iter().flatten() {
            if reached_by.contains_key(dependency.to.as_str()) {
                continue;
            }
            reached_by.insert(&dependency.to, dependency);
            if dependency.to != start {
                next.push_back(&dependency.to);
                continue;
            }
            let mut cycle = vec![*dependency];
            while cycle[0].from != start {
                cycle.insert(0, reached_by[cycle[0].from.as_str()]);
            }
            return Some(cycle);
        }
    }
    None
}

/// `service/mod.rs` and `service.rs` are the module `service`, `lib.rs` is the root.
fn module_of(name: &str) -> ModulePath {
    let name = name.strip_suffix(".rs").unwrap_or(name);
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" { Vec::new() } else { name.split('/').map(str::to_owned).collect() }
}

/// The path from the root of the crate; `None` when it leads out of the crate or to the scope's own items.
fn absolute(scopes: &BTreeMap<ModulePath, Scope>, scope: &[String], path: &[String]) -> Option<ModulePath> {
    let mut base = scope.to_vec();
    match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => return Some([&base[..], &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            base.truncate(base.len().checked_sub(ups)?);
            return Some([&base[..], &path[ups..]].concat());
        }
        _ => {}
    }
    let known = scopes.get(scope)?;
    if known.children.contains(&path[0]) {
        return Some([&base[..], path].concat());
    }
    let imported = known.imports.get(&path[0]).filter(|imported| imported[0] != path[0])?;
    let imported = absolute(scopes, scope, imported)?;
    Some([&imported[..], &path[1..]].concat())
}

/// The file that defines what a path from the root names.
fn defined_in(scopes: &BTreeMap<ModulePath, Scope>, path: &[String], depth: usize) -> Option<String> {
    // Protects against cyclic re-exports, which the compiler refuses.
    if depth > 20 {
        return None;
    }
    let modules = (0..=path.len()).rev().find(|length| scopes.contains_key(&path[..*length]))?;
    let scope = &scopes[&path[..modules]];
    if let Some(name) = path.get(modules)
        && !scope.items.contains(name)
        && let Some(imported) = scope.imports.get(name)
        && let Some(target) = absolute(scopes, &path[..modules], imported)
    {
        return defined_in(scopes, &[&target[..], &path[modules + 1..]].concat(), depth + 1);
    }
    // Nothing is defined at the root itself.
    (modules > 0).then(|| scope.file.clone())
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let mentions_test = |tokens: TokenStream| {
        let mut negated = false;
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) if ident == "not" => {
                negated = true;
                false
            }
            TokenTree::Ident(ident) => ident == "test",
            TokenTree::Group(_) if std::mem::take(&mut negated) => false,
            TokenTree::Group(group) => group.stream().into_iter().any(|token| token.to_string() == "test"),
            _ => false,
        })
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| mentions_test(list.tokens.clone()))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

impl Reader {
    fn refer(&mut self, path: Vec<String>, line: usize, is_export: bool) {
        let (file, scope) = (self.file.clone(), self.scope.clone());
        self.references.push(Reference { file, scope, path, line, is_export });
    }

    fn import(&mut self, tree: &syn::UseTree, mut path: Vec<String>, is_export: bool) {
        match tree {
            syn::UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.import(&part.tree, path, is_export);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, path.clone(), is_export));
            }
            syn::UseTree::Glob(glob) => self.refer(path, glob.span().start().line, is_export),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                if ident != "self" {
                    path.push(ident.to_string());
                }
                let local = match tree {
                    syn::UseTree::Rename(renamed) => renamed.rename.to_string(),
                    _ => path.last().cloned().unwrap_or_default(),
                };
                self.scopes.entry(self.scope.clone()).or_default().imports.insert(local, path.clone());
                self.refer(path, ident.span().start().line, is_export);
            }
        }
    }

    /// Paths among the tokens of a macro's arguments.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.macro_path(std::mem::take(&mut path), line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.macro_path(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.macro_path(path, line);
    }

    fn macro_path(&mut self, path: Vec<String>, line: usize) {
        if path.len() > 1 {
            self.refer(path, line, false);
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        if let Some(name) = name_of(item) {
            self.scopes.entry(self.scope.clone()).or_default().items.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        let name = module.ident.to_string();
        self.scopes.entry(self.scope.clone()).or_default().children.insert(name.clone());
        if module.content.is_some() {
            self.scope.push(name);
            self.scopes.entry(self.scope.clone()).or_default().file = self.file.clone();
            visit::visit_item_mod(self, module);
            self.scope.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.import(&item.tree, Vec::new(), !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            let parts = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.refer(parts, path.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}
}
