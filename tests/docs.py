#!/usr/bin/env python3
"""Checks the documentation: relative links and their anchors resolve, every message that docs/troubleshooting.md quotes is in
the source, every warning and error that the service logs has a row there, every test that SECURITY.md names exists, and so
does every path in CONTRIBUTING.md and docs/development. Prints the problems; the exit code is 1 when there are any.

    python3 tests/docs.py [--messages]

--messages also prints the source files of each quoted message.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = ROOT / "docs/troubleshooting.md"
# Shorter parts of a message may be in the source by coincidence.
SHORTEST = 6
# Messages of the operating system.
FOREIGN = {"Address already in use"}


def pages():
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    return [ROOT / name for name in names.stdout.split()]


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(page):
    """Anchors of the headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", without_code(page.read_text()), flags=re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def broken_links():
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_code(page.read_text()))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            where = f"{page.relative_to(ROOT)}: {target}"
            if not file.exists():
                yield f"{where}: the file does not exist"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                yield f"{where}: the heading does not exist"


def source():
    """The text of the program by file, with continued string literals joined."""
    files = {}
    for path in sorted(path for path in (ROOT / "src").rglob("*.rs") if "tests" not in path.relative_to(ROOT).as_posix()):
        text = re.sub(r"\\\n\s*", "", path.read_text()).replace('\\"', '"')
        files[str(path.relative_to(ROOT))] = text
    return files


def messages():
    """Quoted messages with the variable parts cut out. Rows of the first table are symptoms, not messages."""
    for line in MESSAGES.read_text().splitlines():
        cell = line.split("|")[1].strip() if line.startswith("|") else ""
        if not cell.startswith(("`", "…")):
            continue
        for quote in re.findall(r"`([^`]+)`", cell):
            parts = [part.strip(" ;:,().") for part in quote.split("…")]
            yield quote, [part for part in parts if len(part) >= SHORTEST and part not in FOREIGN]


def log_texts(text):
    """The format strings of warnings and errors that begin with fixed words, not with a placeholder."""
    text = re.split(r"\n#\[cfg\(test\)\]\nmod \w+ \{", text)[0]
    for call in re.finditer(r"\b(?:(?:warn|error)!|log_dedup::(?:warn|error))\(", text):
        arguments = text[call.end():text.find(");", call.end())]
        if "&text" in arguments or re.search(r", text$", arguments):
            # The text is the variable that was defined last.
            arguments = text[text.rfind("let text =", 0, call.start()):call.start()]
        # The message is the first string with a space; others are names.
        literals = [literal for literal in re.findall(r'"([^"]*)"', arguments) if " " in literal]
        if literals and not literals[0].startswith("{"):
            yield literals[0]


def texts_without_row(files):
    quotes = [quote.split("…")[0].strip(" :") for quote, _ in messages()]
    quotes = [quote for quote in quotes if len(quote) >= SHORTEST]
    for name, text in files.items():
        for literal in log_texts(text) if not name.startswith("src/train/") else ():
            fixed = literal.split("{")[0].strip(" :")
            if not any(fixed.startswith(quote) for quote in quotes):
                yield f"{MESSAGES.relative_to(ROOT)}: no row for the log line {literal!r} of {name}"


def missing_paths():
    """Paths in backticks that are neither in the repository nor the end of a path in it."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    folders = "src|tests|docs|systemd|pipelines|examples|benches|models"
    for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/development").glob("*.md"))]:
        for path in re.findall(rf"`((?:{folders})/[\w./-]*|[\w/-]+\.(?:rs|js|html|yaml))`", page.read_text()):
            found = any(f"/{path.rstrip('/')}/" in f"/{name}/" for name in names)
            if not found and not re.search("NAME|^target/", path):
                yield f"{page.relative_to(ROOT)}: the path {path} does not exist"


def missing_tests():
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", text))
    code = "".join(path.read_text() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.rs"))
    for name in sorted(named - set(re.findall(r"\bfn (\w+)", code))):
        yield f"SECURITY.md: the test {name} does not exist"


def main():
    files = source()
    problems = [*broken_links(), *missing_tests(), *missing_paths(), *texts_without_row(files)]
    for quote, parts in messages():
        sources = [name for name, text in files.items() if all(part in text for part in parts)]
        if not sources and not all(any(part in text for text in files.values()) for part in parts):
            problems.append(f"{MESSAGES.relative_to(ROOT)}: no source has the message {quote!r}")
        if "--messages" in sys.argv:
            print(f"{quote}: {', '.join(sources[:4])}")
    print("\n".join(problems), file=sys.stderr) if problems else None
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
