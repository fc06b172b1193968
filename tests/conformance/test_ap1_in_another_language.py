"""AP1 against a second implementation, in another language and on other cryptography, written from docs/envelope.md."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from authpipe_envelope import Context, derive_record_key, hosts_digest, open_record, seal_record
from authpipe_sensitive import Secret

SCRIPT = Path(__file__).resolve().parents[1] / "node" / "ap1.mjs"
SIZES = (0, 1, 62, 63, 64, 65, 127, 1_000, 70_000)


def ask(requests: list[dict[str, Any]]) -> list[str]:
    """Has the other implementation seal or open."""
    done = subprocess.run(["node", str(SCRIPT)], input=json.dumps(requests).encode(), capture_output=True, check=True)
    answer: list[str] = json.loads(done.stdout)
    return answer


def context(number: int) -> Context:
    """A context whose fields differ with the number, also in their length and alphabet."""
    hosts = hosts_digest([f"api{number}.example", "b.example"])
    return Context(
        "prod",
        "eu",
        "user-credentials",
        "ws_é" * (number + 1),
        f"con_{number}",
        1 + number % 6,
        1 + number * 2**40,
        "provider",
        hosts,
    )


def fields(bound: Context) -> dict[str, Any]:
    return {**bound._asdict(), "hosts": bound.hosts.hex()}


@pytest.mark.promise("P01")
def test_what_we_seal_the_other_opens() -> None:
    plaintexts = [os.urandom(size) for size in SIZES]
    requests = []
    for number, plaintext in enumerate(plaintexts):
        ck, salt, bound = os.urandom(32), os.urandom(32), context(number)
        record = seal_record(derive_record_key(Secret(ck), 7, salt, bound.record_class), bound, plaintext)
        requests.append({"act": "open", "ck": ck.hex(), "fields": fields(bound), "record": record.hex()})
    assert ask(requests) == [plaintext.hex() for plaintext in plaintexts]


@pytest.mark.promise("P01")
def test_what_the_other_seals_we_open() -> None:
    requests = [
        {
            "act": "seal",
            "ck": os.urandom(32).hex(),
            "salt": os.urandom(32).hex(),
            "key_version": 2**32 - 1,
            "fields": fields(context(number)),
            "plaintext": os.urandom(size).hex(),
        }
        for number, size in enumerate(SIZES)
    ]
    for number, (request, sealed) in enumerate(zip(requests, ask(requests), strict=True)):
        bound, ck, salt = context(number), bytes.fromhex(request["ck"]), bytes.fromhex(request["salt"])
        key = derive_record_key(Secret(ck), 2**32 - 1, salt, bound.record_class)
        assert open_record(key, bound, bytes.fromhex(sealed)) == Secret(bytes.fromhex(request["plaintext"]))
