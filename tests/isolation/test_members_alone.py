"""Each process installed alone from its own lock: what is forbidden to it is not there to import."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "services/gateway/edge": [
        "sqlalchemy",
        "psycopg",
        "alembic",
        "pkcs11",
        "authlib",
        "authpipe_database",
        "authpipe_keyservice",
    ],
    "services/oauth/worker": ["sqlalchemy", "psycopg", "pkcs11", "fastapi", "granian", "authpipe_database"],
    "services/vault": ["pkcs11", "httpx2", "authlib", "fastapi", "authpipe_keyservice", "authpipe_consumer"],
    "services/clientsecrets": ["pkcs11", "httpx2", "authlib", "fastapi", "authpipe_vault", "authpipe_consumer"],
    "services/keyservice": ["httpx2", "authlib", "fastapi", "authpipe_recordstore", "authpipe_consumer"],
    "services/audit": ["pkcs11", "httpx2", "authlib", "fastapi", "authpipe_consumer", "authpipe_envelope"],
    "services/herald": [
        "sqlalchemy",
        "psycopg",
        "pkcs11",
        "fastapi",
        "authlib",
        "authpipe_database",
        "authpipe_grants",
    ],
    "services/admin": [
        "pkcs11",
        "sqlalchemy",
        "psycopg",
        "fastapi",
        "authlib",
        "authpipe_database",
        "authpipe_envelope",
    ],
    "services/gateway/authority": ["pkcs11", "httpx2", "authlib", "fastapi", "authpipe_consumer"],
    "services/oauth/coordinator": ["pkcs11", "httpx2", "authlib", "fastapi", "authpipe_consumer"],
}


def uv() -> str:
    found = shutil.which("uv") or str(ROOT / ".authpipe" / "bootstrap" / "bin" / "uv")
    assert Path(found).exists()
    return found


def own_members(folder: Path) -> list[Path]:
    """Finds the members that a member stands on, itself first."""
    places = {
        tomllib.loads(file.read_text())["project"]["name"]: file.parent
        for top in ("libs", "services")
        for file in (ROOT / top).rglob("pyproject.toml")
    }
    found: list[Path] = []
    waiting = [folder]
    while waiting:
        member = waiting.pop()
        if member in found:
            continue
        found.append(member)
        names = tomllib.loads((member / "pyproject.toml").read_text())["project"]["dependencies"]
        waiting += [places[name] for name in names if name in places]
    return found


@pytest.mark.promise("P10")
@pytest.mark.parametrize("member", FORBIDDEN)
def test_a_process_installed_alone_imports_and_has_nothing_that_is_forbidden(member: str, tmp_path: Path) -> None:
    folder = ROOT / member
    lock = (folder / "requirements.lock").read_text().lower().replace("_", "-")
    own = own_members(folder)
    names = {tomllib.loads((each / "pyproject.toml").read_text())["project"]["name"] for each in own}
    # What the lock and the members bring, put side by side as an image would have it, and nothing else.
    site = tmp_path / "site"
    site.mkdir()
    command = [uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--require-hashes", "--target", str(site)]
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    python = ["--python", str(ROOT / ".authpipe" / "venv" / "bin" / "python")]
    done = subprocess.run(
        [*command, *python, "-r", str(folder / "requirements.lock")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # What its README says is installed with it is what is installed with it.
    said = dict(re.findall(r"(?m)^- ([a-z0-9._-]+)(, on some platforms)?$", (folder / "README.md").read_text()))
    installed = {re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower() for each in distributions(path=[str(site)])}
    assert installed <= set(said)
    assert {name for name, somewhere in said.items() if not somewhere} <= installed
    path = os.pathsep.join([str(site), *(str(each / "src") for each in own)])
    module = next((folder / "src").iterdir()).name
    program = f"import importlib, importlib.util\nimportlib.import_module('{module}.__main__')\n"
    program += f"print([name for name in {FORBIDDEN[member]!r} if importlib.util.find_spec(name)])"
    # -S: the site-packages of this environment stay out; -P: so does this folder.
    ran = subprocess.run(
        [str(ROOT / ".authpipe" / "venv" / "bin" / "python"), "-S", "-P", "-c", program],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
    assert names
    for word in FORBIDDEN[member]:
        assert f"\n{word.replace('_', '-')}==" not in f"\n{lock}"
