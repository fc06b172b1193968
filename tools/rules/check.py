"""House rules as ast-grep patterns. Each is first shown a sample that breaks it, so that a rule that sees nothing fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Rule:
    """A pattern that must not occur.

    Args:
        says: The rule, as a sentence.
        patterns: What must not occur.
        folders: Where, as globs from the root.
        breaks: A sample that breaks it.
        has: A word without which a match is no breach; with "!" in front: with which it is none.
        fits: A regular expression for the match; one that fits is no breach.
    """

    says: str
    patterns: tuple[str, ...]
    folders: tuple[str, ...]
    breaks: str
    has: str = ""
    fits: str = ""


SOURCES = ("libs/*/src", "services/*/src", "services/*/*/src")
DOMAINS = ("libs/*/src/*/domain", "services/*/src/*/domain", "services/*/*/src/*/domain")
RULES = (
    Rule(
        "No clock in a domain: it is handed in.",
        ("time.time()", "time.monotonic()", "datetime.now($$$)", "dt.datetime.now($$$)"),
        DOMAINS,
        "now = time.time()",
    ),
    Rule(
        "No randomness in a domain: it is handed in.",
        ("os.urandom($$$)", "secrets.token_bytes($$$)", "secrets.token_hex($$$)", "random.random()"),
        DOMAINS,
        "salt = os.urandom(32)",
    ),
    Rule(
        "expose() only at a door: a rule hands secrets on and asks them, and never looks inside.",
        ("$X.expose($$$)",),
        DOMAINS,
        "text = token.expose()",
    ),
    Rule(
        "No unnamed task.",
        ("asyncio.create_task($$$A)", "$L.create_task($$$A)"),
        SOURCES,
        "asyncio.create_task(work())",
        "!name=",
    ),
    Rule(
        "No text of a message: str() and json_format show secrets.",
        ("json_format.$F($$$)", "text_format.$F($$$)"),
        SOURCES,
        "json_format.MessageToJson(m)",
    ),
    Rule(
        "A log event is a fixed phrase in lower case, as libs/sensitive takes it; another one is refused when it runs.",
        ("get_log().$LEVEL($$$A)",),
        SOURCES,
        'get_log().warning("A Provider\'s answer was lost")',
        fits=r"get_log\(\)\.\w+\(\s*\"[a-z][a-z0-9 ,_'-]{0,119}\"[\s\S]*",
    ),
    Rule("A print is no log.", ("print($$$)",), ("libs/*/src", "services/*/src", "services/*/*/src"), "print(value)"),
    Rule(
        "No assert guards a door: it is gone with -O.",
        ("assert $X",),
        ("services/*/src", "services/*/*/src"),
        "assert allowed",
    ),
)


def scan(pattern: str, paths: list[Path]) -> list[dict[str, object]]:
    """Finds a pattern in files."""
    command = [
        str(Path(sys.executable).with_name("ast-grep")),
        "run",
        "--lang",
        "python",
        "--json=compact",
        "-p",
        pattern,
    ]
    out = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False).stdout
    found: list[dict[str, object]] = json.loads(out or "[]")
    return found


def breaches(rule: Rule, paths: list[Path]) -> list[str]:
    """Gives where a rule is broken."""
    found = []
    for pattern in rule.patterns:
        for match in scan(pattern, paths):
            text = str(match["text"])
            if rule.has.startswith("!") and rule.has[1:] in text:
                continue
            if rule.fits and re.fullmatch(rule.fits, text):
                continue
            start = match["range"]["start"]["line"]  # type: ignore[index]
            found.append(f"{match['file']}:{start + 1}: {rule.says}")
    return found


def main() -> None:
    """Shows each rule its sample, then the sources."""
    wrong: list[str] = []
    for rule in RULES:
        with tempfile.TemporaryDirectory() as folder:
            sample = Path(folder) / "sample.py"
            sample.write_text(rule.breaks + "\n")
            if not breaches(rule, [sample]):
                sys.exit(f"This rule sees nothing: {rule.says}")
        paths = [path for folder in rule.folders for path in ROOT.glob(folder) if path.is_dir()]
        if not paths:
            sys.exit(f"This rule looks nowhere: {rule.says}")
        wrong += breaches(rule, paths)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"house rules: {len(RULES)} kept")


if __name__ == "__main__":
    main()
