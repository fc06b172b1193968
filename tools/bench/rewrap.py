"""Re-wraps of a KEK rotation beside the HSM's own rate, and seal and open beside bare AES-256-GCM. Prints JSON.

    python rewrap.py FOLDER HOW_MANY     (SOFTHSM2_CONF names the token's configuration)

Everything is real but the process around it: a token, PostgreSQL over mutual TLS, keyservice's own classes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import authpipe_keyservice
import psycopg
from authpipe_database import Database, Outbox
from authpipe_envelope import Context, derive_record_key, hosts_digest, new_salt, open_record, seal_record
from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import KeyCache, dek_aad, kek_label
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.domain.rewrapping import CHUNK, Rewrapping
from authpipe_keyservice.domain.rotation import Policy, Rotation
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.store import DekTable, KekTable, ReplicaTable
from authpipe_sensitive import Secret
from authpipe_testing.database import own_database
from authpipe_testing.softhsm import find_module
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DOMAIN = "user-credentials"
ROLE = "keyservice_user_credentials"


async def wrap_many(hsm: Hsm, count: int) -> list[tuple[str, int, int, bytes]]:
    """Makes rows of wrapped DEKs, one a workspace."""
    names = [f"ws_{number:08}" for number in range(count)]
    label = kek_label(DOMAIN, 1)
    rows = []
    for at in range(0, count, 256):
        chunk = names[at : at + 256]
        wrapped = await asyncio.gather(*(hsm.wrap(label, os.urandom(32), dek_aad(DOMAIN, name, 1)) for name in chunk))
        rows += [(name, 1, 1, each) for name, each in zip(chunk, wrapped, strict=True)]
    return rows


async def raw_rate(hsm: Hsm, rows: list[tuple[str, int, int, bytes]]) -> float:
    """Gives how many re-wraps a second the HSM does, when nothing else is done."""
    items = [(wrapped, dek_aad(DOMAIN, name, 1)) for name, _, _, wrapped in rows[:20_000]]
    began = time.perf_counter()
    for at in range(0, len(items), CHUNK):
        await hsm.rewrap(kek_label(DOMAIN, 1), kek_label(DOMAIN, 2), items[at : at + CHUNK])
    return len(items) / (time.perf_counter() - began)


async def rotate(folder: Path, count: int) -> dict[str, float]:
    """Rotates over so many DEKs; gives both rates."""
    hsm = Hsm(find_module(), DOMAIN, folder / "pin")
    await hsm.open()
    migrations = Path(authpipe_keyservice.__file__).parent / "migrations"
    (folder / "postgres").mkdir()
    with own_database(folder / "postgres", ROLE, migrations) as (config, cluster):
        database = Database(config)
        await database.open()
        outbox = Outbox()
        keks, deks, replicas = KekTable(database, outbox), DekTable(database, outbox), ReplicaTable(database)
        replica = Replica("bench", replicas, KeyCache(time.monotonic, 300), time.monotonic)
        keyring = Keyring(DOMAIN, replica.name, keks, hsm)
        rotation = Rotation(
            key_domain=DOMAIN,
            keyring=keyring,
            table=keks,
            wrapper=hsm,
            policy=Policy(1e9, 1e9),
            clock=time.time,
            randomness=os.urandom,
        )
        rewrapping = Rewrapping(
            key_domain=DOMAIN,
            keyring=keyring,
            table=deks,
            wrapper=hsm,
            share=1.0,
            clock=time.monotonic,
            note=lambda *_: None,
        )
        await replica.beat()
        for _ in range(3):
            await rotation.advance()
        rows = await wrap_many(hsm, count)
        with psycopg.connect(**cluster.conninfo("dba", ROLE), autocommit=True) as dba:  # type: ignore[arg-type]
            copied = "copy deks (workspace_id, version, kek_version, wrapped) from stdin"
            with dba.cursor().copy(copied) as copy:
                for row in rows:
                    copy.write_row(row)
            dba.execute("vacuum analyze deks")
        await rotation.rotate("operator:bench", "bench")
        for _ in range(3):
            await rotation.advance()
        raw = [await raw_rate(hsm, rows)]
        began = time.perf_counter()
        done = await rewrapping.run()
        seconds = time.perf_counter() - began
        raw.append(await raw_rate(hsm, rows))
        assert done == (count, 0), done
        await database.close()
    await hsm.close()
    return {"rewraps": count / seconds, "raw": sum(raw) / 2}


def micros(work: Callable[[], Any], times: int = 5_000) -> float:
    """Gives how many microseconds something takes; the best of five runs, so that a noisy neighbour is not measured."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - began) / times)
    return best * 1e6


def envelope() -> dict[str, float]:
    """Gives what seal, open and bare AES-256-GCM of 1 KiB cost."""
    context = Context("d", "eu", DOMAIN, "ws_a", "con_a", 1, 3, "acme", hosts_digest(["api.acme.example"]))
    ck, salt, plaintext = os.urandom(32), new_salt(), os.urandom(1024)
    record = seal_record(derive_record_key(Secret(ck), 1, salt, 1), context, plaintext)
    cipher, nonce, aad = AESGCM(os.urandom(32)), os.urandom(12), os.urandom(200)
    return {
        "seal": micros(lambda: seal_record(derive_record_key(Secret(ck), 1, salt, 1), context, plaintext)),
        "open": micros(lambda: open_record(derive_record_key(Secret(ck), 1, salt, 1), context, record).destroy()),
        "gcm": micros(lambda: cipher.encrypt(nonce, plaintext, aad)),
    }


def main() -> None:
    """Measures and prints."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({**asyncio.run(rotate(folder, count)), **envelope()}))


if __name__ == "__main__":
    main()
