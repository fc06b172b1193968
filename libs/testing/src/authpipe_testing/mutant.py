"""Runs a process of ours with a control switched off: `python -m authpipe_testing.mutant CONFIG`.

AUTHPIPE_MUTANT names a JSON file: the module to run, and patches of module, old text and new text. A patch whose old
text does not occur ends the process, so that a mutant whose control was rewritten is mended rather than forgotten. The
sources on disk stay as they are.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType


class _Patched(SourceFileLoader):
    """Loads a module from its source, changed; no cached bytecode is read or written."""

    def __init__(self, spec: ModuleSpec, patches: list[tuple[str, str]]) -> None:
        assert spec.origin is not None
        super().__init__(spec.name, spec.origin)
        self._patches = patches

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        for old, new in self._patches:
            if old not in source:
                sys.exit(f"mutant: {fullname} is not written like this any more; mend the mutant")
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class _Finder:
    """Finds the modules that are patched, and no others."""

    def __init__(self, patches: dict[str, list[tuple[str, str]]]) -> None:
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patches = self._patches.get(name)
        spec = PathFinder.find_spec(name, path, target) if patches else None
        if spec is None or patches is None:
            return None
        return importlib.machinery.ModuleSpec(name, _Patched(spec, patches), origin=spec.origin)


def main() -> None:
    """Patches, then runs the module as its own main."""
    settings = json.loads(Path(os.environ["AUTHPIPE_MUTANT"]).read_text())
    patches: dict[str, list[tuple[str, str]]] = {}
    for module, old, new in settings["patches"]:
        patches.setdefault(module, []).append((old, new))
    sys.meta_path.insert(0, _Finder(patches))
    runpy.run_module(settings["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
