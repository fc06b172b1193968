"""A SoftHSM token of its own folder and configuration, made over PKCS#11, so that no PIN is on a command line.

Run as a process (`python -m authpipe_testing.softhsm MODULE LABEL PIN_FILE`): the library reads SOFTHSM2_CONF once.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
import sys
from pathlib import Path

from authpipe_testing.ca import write_private

_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_SERIAL_RW = 6
_SO = 0


def find_module() -> Path:
    """Gives the path of SoftHSM's library.

    Raises:
        FileNotFoundError: It is not installed.
    """
    for place in _PLACES:
        if Path(place).exists():
            return Path(place)
    raise FileNotFoundError(
        "SoftHSM is not installed: apt install softhsm2, dnf install softhsm, or brew install softhsm."
    )


def make_token(folder: Path, label: str) -> tuple[Path, Path]:
    """Makes a token unless there is one; gives its SOFTHSM2_CONF and the file with its PIN."""
    configuration, pin_file = folder / "softhsm2.conf", folder / "pin"
    if pin_file.exists():
        return configuration, pin_file
    (folder / "tokens").mkdir(mode=0o700, parents=True, exist_ok=True)
    text = f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    write_private(configuration, text.encode())
    fresh = folder / "pin.fresh"
    write_private(fresh, secrets.token_hex(16).encode())
    subprocess.run(
        [sys.executable, "-m", "authpipe_testing.softhsm", str(find_module()), label, str(fresh)],
        env={"SOFTHSM2_CONF": str(configuration), "PATH": os.environ["PATH"]},
        check=True,
    )
    fresh.rename(pin_file)
    pin_file.chmod(0o400)
    return configuration, pin_file


def add_token(folder: Path, label: str, pin_file: Path) -> Path:
    """Makes one more token beside those of a folder, somebody else's; gives the file with its PIN."""
    write_private(pin_file, secrets.token_hex(16).encode())
    subprocess.run(
        [sys.executable, "-m", "authpipe_testing.softhsm", str(find_module()), label, str(pin_file)],
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        check=True,
    )
    return pin_file


def _initialise(module: str, label: str, pin_file: str) -> None:
    library = ctypes.CDLL(module)
    pin = Path(pin_file).read_bytes()
    so_pin = secrets.token_hex(16).encode()  # nobody needs it again: a new PIN is a new token
    session = ctypes.c_ulong()
    slots, count = (ctypes.c_ulong * 8)(), ctypes.c_ulong(8)
    _check(library.C_Initialize(None))
    _check(library.C_GetSlotList(ctypes.c_ubyte(0), slots, ctypes.byref(count)))
    # The last slot is the one without a token.
    slot = ctypes.c_ulong(slots[count.value - 1])
    _check(library.C_InitToken(slot, so_pin, ctypes.c_ulong(len(so_pin)), label.encode().ljust(32)))
    flags = ctypes.c_ulong(_SERIAL_RW)
    _check(library.C_OpenSession(_slot_of(library, label), flags, None, None, ctypes.byref(session)))
    _check(library.C_Login(session, ctypes.c_ulong(_SO), so_pin, ctypes.c_ulong(len(so_pin))))
    _check(library.C_InitPIN(session, pin, ctypes.c_ulong(len(pin))))
    _check(library.C_Finalize(None))


def _slot_of(library: ctypes.CDLL, label: str) -> ctypes.c_ulong:
    """Finds a token; SoftHSM gives it another slot once it is initialised."""
    slots, count = (ctypes.c_ulong * 8)(), ctypes.c_ulong(8)
    _check(library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count)))
    for number in slots[: count.value]:
        # CK_TOKEN_INFO begins with the label, 32 bytes, padded with blanks (PKCS #11, section 3.2).
        info = ctypes.create_string_buffer(512)
        _check(library.C_GetTokenInfo(ctypes.c_ulong(number), info))
        if info.raw[:32].decode().rstrip() == label:
            return ctypes.c_ulong(number)
    sys.exit("The token is not there.")


def _check(result: int) -> None:
    if result != 0:
        sys.exit(f"SoftHSM answered {result:#x}.")


if __name__ == "__main__":
    _initialise(*sys.argv[1:4])
