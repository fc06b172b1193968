"""Pages that cannot lie: made from the protos, the error classes and the locks. With --check, fails where one is stale.

README.md            between its marks: who may call whom
docs/calls.md        every rpc: its callers and the event it must leave
docs/audit-events.md every event of the catalogue: what it tells, and the effect of its act
docs/reasons.md      every stable reason of an error, its gRPC code and its sentence
services/…/README.md each member: its boundary, its right to call, what is installed with it
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MADE = "Made by `make protos`; do not edit."
_BEGIN, _END = "<!-- callers -->", "<!-- /callers -->"


def services() -> list[Any]:
    """Gives every service between our processes."""
    found = []
    for proto in sorted((ROOT / "protos" / "authpipe").rglob("*.proto")):
        name = ".".join(proto.relative_to(ROOT / "protos").with_suffix("").parts)
        found += importlib.import_module(f"{name}_pb2").DESCRIPTOR.services_by_name.values()
    return [service for service in found if not service.full_name.startswith("authpipe.gateway.")]


def rules(method: Any) -> tuple[list[str], str]:
    """Gives who may call an rpc, and the event it must leave."""
    access = importlib.import_module("authpipe.options.v1.access_pb2")
    events = importlib.import_module("authpipe.types.v1.events_pb2")
    options = method.GetOptions()
    callers = [
        f"{each.peer} (at {each.server})" if each.server else each.peer
        for each in options.Extensions[access.allowed_callers]
    ]
    event = events.EventName.Name(options.Extensions[access.emits]).removeprefix("EVENT_NAME_")
    return callers, event


def stands(method: Any) -> bool:
    """Says whether an rpc has streams that stand."""
    access = importlib.import_module("authpipe.options.v1.access_pb2")
    return bool(method.GetOptions().Extensions[access.standing])


def callers_table() -> str:
    """Gives a line per service: who may call any of its rpcs."""
    lines = ["| API | who may call it |", "|---|---|"]
    for service in services():
        named = {each.partition(" ")[0] for method in service.methods for each in rules(method)[0]}
        api = service.full_name.split(".")[1]
        lines.append(f"| {api}: {service.name} | {', '.join(sorted(named))} |")
    return "\n".join(lines)


def calls_page() -> str:
    """Gives docs/calls.md."""
    lines = ["# Who may call what", "", MADE, ""]
    lines += [
        "An rpc that *stands* is called on streams that stay as well ([0006](decisions/0006-standing-streams.md)), by the same",
        "callers, with the same duty at every turn.",
        "",
    ]
    for service in services():
        lines += [f"## {service.full_name}", "", "| rpc | callers | event it must leave |", "|---|---|---|"]
        for method in service.methods:
            callers, event = rules(method)
            name = f"{method.name} (stands)" if stands(method) else method.name
            lines.append(f"| {name} | {', '.join(callers)} | {'none' if event == 'NOTHING' else event} |")
        lines.append("")
    return "\n".join(lines)


def events_page() -> str:
    """Gives docs/audit-events.md."""
    text = (ROOT / "protos" / "authpipe" / "types" / "v1" / "events.proto").read_text()
    found = re.findall(
        r"((?:  //[^\n]*\n)+)  EVENT_NAME_(\w+) = (\d+) \[\(authpipe\.types\.v1\.effect\) = EFFECT_(\w+)\];", text
    )
    where: dict[str, list[str]] = {}
    for service in services():
        for method in service.methods:
            where.setdefault(rules(method)[1], []).append(f"{service.name}.{method.name}")
    lines = ["# The events of the audit log", "", MADE, ""]
    lines += [
        "How an event is written is in [audit-format.md](audit-format.md). *enlarges*: it gives access or begins to use some, and without",
        "room for its event it is refused. *completes* and *reduces* are never held up. *tells*: of something refused or",
        "alarming; floods of these are counted and sampled.",
        "",
        "| event | what it tells | effect | rpcs that must leave it |",
        "|---|---|---|---|",
    ]
    for comment, name, _, effect in sorted(found, key=lambda each: int(each[2])):
        said = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines()).replace("|", "\\|")
        lines.append(f"| {name} | {said} | {effect.lower()} | {', '.join(where.get(name, []))} |")
    return "\n".join([*lines, ""])


def reasons() -> list[tuple[str, str, str, str]]:
    """Finds the error classes: reason, code, where, sentence."""
    found = []
    for top in ("libs", "services"):
        for file in sorted((ROOT / top).rglob("src/**/*.py")):
            if "api" in file.relative_to(ROOT).parts[:2]:
                continue
            member = str(file.relative_to(ROOT)).partition("/src/")[0]
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.ClassDef):
                    continue
                values = {
                    target.id: ast.unparse(each.value)
                    for each in node.body
                    if isinstance(each, ast.Assign)
                    for target in each.targets
                    if isinstance(target, ast.Name)
                }
                if "reason" in values and "status" in values:
                    sentence = " ".join((ast.get_docstring(node) or "").split())
                    reason = values["reason"].strip("'\"")
                    found.append((reason, values["status"].removeprefix("Status."), member, sentence))
    return sorted(set(found))


def reasons_page() -> str:
    """Gives docs/reasons.md."""
    lines = ["# Reasons", "", MADE, "", "| reason | gRPC code | where | what it says |", "|---|---|---|---|"]
    lines += [f"| {reason} | {code} | {member} | {sentence} |" for reason, code, member, sentence in reasons()]
    return "\n".join(lines) + "\n"


def member_page(folder: Path) -> str:
    """Gives the README of a member."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    package = next((folder / "src").iterdir())
    said = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    apis = sorted(
        each.removeprefix("authpipe-api-") for each in project["dependencies"] if each.startswith("authpipe-api-")
    )
    own = sorted(each for each in project["dependencies"] if each.startswith("authpipe-") and "-api-" not in each)
    locked = re.findall(r"(?m)^([a-z0-9._-]+)==[^ ]+ (;?)", (folder / "requirements.lock").read_text())
    return "\n".join(
        [
            f"# {project['name']}",
            "",
            said,
            "",
            f"APIs it has the code of, as server or caller: {', '.join(apis)}. Libs: {', '.join(own)}.",
            "",
            "Installed with it, and nothing else:",
            "",
            *(f"- {name}{', on some platforms' if marker else ''}" for name, marker in sorted(set(locked))),
            "",
            MADE,
            "",
        ]
    )


def pages() -> dict[Path, str]:
    """Gives every page with its text."""
    readme = (ROOT / "README.md").read_text()
    head, _, rest = readme.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    made = {
        ROOT / "README.md": f"{head}{_BEGIN}\n{callers_table()}\n{_END}{tail}",
        ROOT / "docs" / "calls.md": calls_page(),
        ROOT / "docs" / "audit-events.md": events_page(),
        ROOT / "docs" / "reasons.md": reasons_page(),
    }
    for file in sorted((ROOT / "services").rglob("pyproject.toml")):
        made[file.parent / "README.md"] = member_page(file.parent)
    return made


def main() -> None:
    """Writes the pages, or says which are stale."""
    made = pages()
    if "--check" not in sys.argv:
        for path, text in made.items():
            path.write_text(text)
        print(f"{len(made)} pages are made.")
        return
    stale = [
        str(path.relative_to(ROOT)) for path, text in made.items() if not path.exists() or path.read_text() != text
    ]
    if stale:
        sys.exit(f"Not what the protos, errors and locks say now (make protos): {', '.join(stale)}")
    print(f"pages: {len(made)} current")


if __name__ == "__main__":
    main()
