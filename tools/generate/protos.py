"""Generates the API wheels from `protos/`: one wheel per API, so that to depend on it is the right to call.

The proto tree equals the Python tree (`authpipe/vault/v1`), so nothing that protoc writes is patched.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
WHEELS = {
    "types": ("options", "types"),
    "keyservice": ("keyservice",),
    "vault": ("vault",),
    "clientsecrets": ("clientsecrets",),
    "oauth": ("oauth",),
    "authority": ("authority",),
    "audit": ("audit",),
    "gateway": ("gateway",),
}


def generate(destination: Path) -> None:
    """Writes the generated code of every API below `destination`, one folder per wheel.

    Raises:
        SystemExit: protoc refused a proto.
    """
    # protoc finds its plugins on the PATH; they are beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    include = importlib.resources.files("grpc_tools") / "_proto"
    for wheel, packages in WHEELS.items():
        source = destination / wheel / "src"
        for package in packages:
            shutil.rmtree(source / "authpipe" / package, ignore_errors=True)
        source.mkdir(parents=True, exist_ok=True)
        files = [str(file) for package in packages for file in sorted((PROTOS / "authpipe" / package).rglob("*.proto"))]
        arguments = [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={include}",
            f"--python_out={source}",
            f"--mypy_out={source}",
            f"--grpc_python_out={source}",
            f"--mypy_grpc_out={source}",
            *files,
        ]
        if protoc.main(arguments) != 0:
            sys.exit(f"protoc refused the protos of {wheel}.")
        for generated in list(source.rglob("*_pb2_grpc.py")):
            if "class " not in generated.read_text():  # a file of messages: there is nothing to call
                generated.unlink()
                generated.with_suffix(".pyi").unlink(missing_ok=True)
        for package in packages:
            for folder in (source / "authpipe" / package).rglob("v1"):
                (folder / "py.typed").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "libs" / "api")
