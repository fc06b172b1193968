"""`authpipe-admin catalog`: what a person sees who writes an entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from authpipe_admin.catalog import app
from authpipe_providers import load_catalog
from typer.testing import CliRunner

RUNNER = CliRunner()


def written(folder: Path, name: str, document: object) -> str:
    file = folder / name
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(file)


@pytest.mark.promise("P37")
def test_a_good_file_passes_and_a_bad_one_ends_with_1_and_says_where(tmp_path: Path) -> None:
    good = dict(load_catalog()["github"].document)
    assert RUNNER.invoke(app, ["lint", written(tmp_path, "github.json", good)]).exit_code == 0
    for name, document, sentence in (
        ("github.json", good | {"surprise": 1}, "does not fit the schema"),
        ("other.json", good, "github.json"),
        ("broken.json", "{", "no JSON"),
        ("list.json", "[]", "no JSON object"),
    ):
        result = RUNNER.invoke(app, ["lint", written(tmp_path, name, document)])
        assert result.exit_code == 1
        assert sentence in result.output
        assert "1 checked, 1 wrong" in result.output


def test_two_files_of_one_name_are_one_too_many(tmp_path: Path) -> None:
    good = dict(load_catalog()["github"].document)
    other = tmp_path / "other"
    other.mkdir()
    files = [written(tmp_path, "github.json", good), written(other, "github.json", good)]
    result = RUNNER.invoke(app, ["lint", *files])
    assert (result.exit_code, "has this name already" in result.output) == (1, True)


def test_the_list_and_the_schema_are_shown() -> None:
    listed = RUNNER.invoke(app, ["list"])
    assert all(name in listed.output for name in ("github", "salesforce"))
    assert json.loads(RUNNER.invoke(app, ["schema"]).output)["title"] == "A Provider of the catalog"
