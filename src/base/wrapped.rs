//! Breaks the lines of generated documentation.

/// The longest line in characters, unless a word or a code span is longer.
const WIDTH: usize = 120;

/// Paragraphs of Markdown, separated by empty lines, in lines of at most 120 characters. Headings, tables, lists, comments and code
/// blocks are left as they are, and lines do not break within code spans.
pub fn wrapped(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let is_text = !paragraph.starts_with(['#', '|', '-', '<']) && !paragraph.starts_with("```");
        if is_text { wrapped_paragraph(paragraph) } else { paragraph.to_owned() }
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn wrapped_paragraph(paragraph: &str) -> String {
    let mut out = String::with_capacity(paragraph.len());
    // Characters in the current line.
    let mut used = 0;
    let mut words = paragraph.split_whitespace();
    while let Some(word) = words.next() {
        let mut word = word.to_owned();
        // A code span goes up to the next backtick.
        while word.matches('`').count() % 2 == 1
            && let Some(next) = words.next()
        {
            word.push(' ');
            word.push_str(next);
        }
        let length = word.chars().count();
        if used > 0 && used + 1 + length > WIDTH {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(&word);
        used += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words_and_code_spans_and_blocks_are_kept() {
        let words = "word ".repeat(50);
        let code = format!("```sh\n{words}\n```");
        let text = format!("# {words}\n\n{words}`{}` ends.\n\n{code}", "a b ".repeat(20).trim());
        let expected = [
            format!("# {words}"),
            ["word ".repeat(24).trim(), "word ".repeat(24).trim(), "word word"].join("\n")
                + &format!(" `{}` ends.", "a b ".repeat(20).trim()),
            code,
        ];
        assert_eq!(wrapped(&text), expected.join("\n\n"));
        // A code span that does not fit into the line begins the next one.
        let span = format!("{} `{}`", "word ".repeat(20).trim(), "c d ".repeat(10).trim());
        assert_eq!(wrapped(&span), span.replacen(" `", "\n`", 1));
    }
}
