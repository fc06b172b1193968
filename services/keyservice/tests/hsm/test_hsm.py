"""The HSM door on a real token (SoftHSM): a token that goes away and comes back, one that is another, a PIN that is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from authpipe_testing.softhsm import find_module, make_token

# In a process of its own: the library keeps its state, and its configuration, for the life of one.
PROGRAM = """
import asyncio, shutil, sys
from pathlib import Path
from authpipe_keyservice.errors import HsmUnavailableError, KeyTamperedError
from authpipe_keyservice.hsm import Hsm

module, folder, act = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
tokens, hidden = folder / "tokens", folder / "hidden"

async def fails(work):
    try:
        await work
    except HsmUnavailableError:
        return True
    return False

async def main():
    hsm = Hsm(module, "user-credentials", folder / "pin")
    if act == "wrong pin":
        (folder / "pin").chmod(0o600)
        (folder / "pin").write_text("0" * 16)
        for _ in range(6):
            assert await fails(hsm.open())
        assert hsm._pin_refusals == 2, "a token locks itself: two tries are enough to know"
        await hsm.close()
        return
    await hsm.open()
    await hsm.make("kek-1")
    wrapped = await hsm.wrap("kek-1", bytes(range(32)), b"aad")
    assert await hsm.unwrap("kek-1", wrapped, b"aad") == bytes(range(32))
    if act == "tampered":
        for changed, aad in ((wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"aad"), (wrapped, b"other"), (wrapped[:-1], b"aad")):
            try:
                await hsm.unwrap("kek-1", changed, aad)
            except KeyTamperedError:
                continue
            raise AssertionError
    if act == "two canaries":
        import authpipe_keyservice.hsm as door
        make = hsm._require().generate_key
        make(door.KeyType.AES, 256, label="canary", store=True)
        hsm._keys.clear()
        await hsm.check()
        make(door.KeyType.AES, 256, label="kek-1", store=True)
        hsm._keys.clear()
        assert await fails(hsm.unwrap("kek-1", wrapped, b"aad")), "of two KEKs of one name none is taken"
    if act in {"back", "another"}:
        tokens.rename(hidden)
        assert await fails(hsm.check())
        assert await fails(hsm.unwrap("kek-1", wrapped, b"aad")), "not found is never taken for destroyed"
        if act == "another":
            tokens.mkdir(0o700)
            for _ in range(2):
                assert await fails(hsm.check()), "an empty token is not ours, and gets no canary"
            tokens.rmdir()
        hidden.rename(tokens)
        await hsm.check()
        assert await hsm.unwrap("kek-1", wrapped, b"aad") == bytes(range(32))
    await hsm.close()

asyncio.run(main())
print("as it should")
"""


@pytest.mark.promise("P04")
@pytest.mark.case(13)
@pytest.mark.parametrize("act", ["tampered", "back", "another", "wrong pin", "two canaries"])
def test_a_real_token_that(act: str, tmp_path: Path) -> None:
    done = run(PROGRAM, act, tmp_path)
    assert done.stdout.strip() == "as it should", done.stderr


MUTANTS = {
    "no canary is opened": ("another", "Hsm._check_canary = lambda self: None"),
    "a PIN is tried as often as one likes": ("wrong pin", "import authpipe_keyservice.hsm as h; h._PIN_TRIES = 99"),
}


@pytest.mark.case(13)
@pytest.mark.parametrize("name", MUTANTS)
def test_the_stage_sees_a_token_door_without(name: str, tmp_path: Path) -> None:
    act, patch = MUTANTS[name]
    done = run(PROGRAM.replace("asyncio.run(main())", f"{patch}\nasyncio.run(main())"), act, tmp_path)
    assert "AssertionError" in done.stderr


def run(program: str, act: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own."""
    make_token(folder, "user-credentials")
    return subprocess.run(
        [sys.executable, "-c", program, str(find_module()), str(folder), act],
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
