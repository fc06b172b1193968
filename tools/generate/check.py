"""Fails when the committed generated code is not what the protos give now."""

from __future__ import annotations

import contextlib
import filecmp
import io
import sys
import tempfile
from pathlib import Path

from protos import ROOT, WHEELS, generate


def main() -> None:
    """Generates anew beside, and compares."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fresh = Path(folder)
        generate(fresh)
        stale = []
        for wheel in WHEELS:
            made = {
                path.relative_to(fresh) for path in (fresh / wheel).rglob("*_pb2*") if path.suffix in {".py", ".pyi"}
            }
            base = ROOT / "libs" / "api"
            kept = {
                path.relative_to(base)
                for path in (base / wheel / "src").rglob("*_pb2*")
                if path.suffix in {".py", ".pyi"}
            }
            stale += [str(path) for path in sorted(made ^ kept)]
            stale += [
                str(path) for path in sorted(made & kept) if not filecmp.cmp(fresh / path, base / path, shallow=False)
            ]
    if stale:
        # To stdout: protoc's plugins chatter on the other one, which make drops.
        print("Not generated from these protos (make protos): " + ", ".join(stale))
        sys.exit(1)
    print("generated code: current")


if __name__ == "__main__":
    main()
