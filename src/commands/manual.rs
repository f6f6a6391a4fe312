//! Manual pages, one per command.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Writes the pages of a command and of its subcommands into an existing folder.
///
/// # Errors
/// When a page cannot be written.
pub fn write(command: Command, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_all(&command, folder)
}

fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_all(command, folder)?;
    }
    let page = Man::new(command.clone());
    let mut file = File::create(folder.join(page.get_filename()))?;
    render(command, &page, &mut file)?;
    file.flush()
}

/// As [`Man::render`], except for the text after the help, which that would join to one paragraph with the heading EXTRA.
fn render(command: &Command, page: &Man, to: &mut dyn Write) -> io::Result<()> {
    page.render_title(to)?;
    page.render_name_section(to)?;
    page.render_synopsis_section(to)?;
    page.render_description_section(to)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(to)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        page.render_subcommands_section(to)?;
    }
    if let Some(text) = command.get_after_help() {
        after_help(&text.to_string(), to)?;
    }
    if command.get_version().is_some() {
        page.render_version_section(to)?;
    }
    Ok(())
}

/// Writes the text after the help line by line, as in the help.
fn after_help(text: &str, to: &mut dyn Write) -> io::Result<()> {
    let (heading, text) = match ["Examples:", "Example:"].iter().find_map(|label| text.strip_prefix(label)) {
        Some(text) => ("EXAMPLES", text.trim_start_matches('\n')),
        None => ("NOTES", text),
    };
    writeln!(to, ".SH {heading}\n.nf")?;
    for line in text.lines() {
        writeln!(to, "{}", escape(line.trim()))?;
    }
    writeln!(to, ".fi")
}

/// Escapes a line for roff (groff_char(7)).
fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_after_the_help_keeps_its_lines() {
        let page = |text: &str| {
            let mut page = Vec::new();
            after_help(text, &mut page).unwrap();
            String::from_utf8(page).unwrap()
        };
        let examples = page("Examples:\n  maskcast doctor\n  maskcast doctor a.toml --json\n\n.And `this`.");
        assert_eq!(
            examples,
            ".SH EXAMPLES\n.nf\nmaskcast doctor\nmaskcast doctor a.toml \\-\\-json\n\n\\&.And \\(gathis\\(ga.\n.fi\n"
        );
        assert!(
            page("Example: maskcast run a.toml\nStops.")
                .starts_with(".SH EXAMPLES\n.nf\nmaskcast run a.toml\nStops.\n")
        );
        assert!(page("Exit codes: 0").starts_with(".SH NOTES\n.nf\nExit codes: 0\n"));
    }
}
