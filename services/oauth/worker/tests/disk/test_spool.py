"""The spool on a real disk, through the deaths of its process: whole or not there, and delivered as long as somebody waits."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from authpipe_consumer.words import PackedWrite, SealedWrite
from authpipe_oauth_worker.domain.delivering import Delivering
from authpipe_oauth_worker.errors import SpoolError
from authpipe_oauth_worker.spool import Spool
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Status

ANSWER = b"a sealed answer " * 100


def opened(folder: Path, most: int = 100) -> Spool:
    spool = Spool(folder, most)
    spool.open()
    return spool


async def keep(spool: Spool, packed: bytes = ANSWER) -> None:
    slot = spool.reserve()
    slot.write(packed)
    await slot.keep()


async def test_what_is_kept_is_found_again_also_by_the_next_process_oldest_first(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(3):
        await keep(spool, b"%d" % number)
    for found in (spool, opened(tmp_path)):
        assert [each.packed for each in found.waiting()] == [b"0", b"1", b"2"]
    spool.remove(spool.waiting()[0].name)
    assert [each.packed for each in opened(tmp_path).waiting()] == [b"1", b"2"]


DIES = """
import os, signal, sys
from pathlib import Path
from authpipe_oauth_worker.spool import Spool
spool = Spool(Path(sys.argv[1]))
spool.open()
slot = spool.reserve()
if sys.argv[2] != "reserved":
    slot.write(b"a sealed answer " * 100)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.parametrize(("died", "found"), [("reserved", []), ("written", [ANSWER])])
def test_a_process_killed_after_the_answer_was_written_leaves_it_and_before_leaves_nothing(
    tmp_path: Path, died: str, found: list[bytes]
) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path), died], check=False)
    assert len(list(tmp_path.glob("*.part"))) == 1
    assert [each.packed for each in opened(tmp_path).waiting()] == found
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.promise("P36")
def test_an_answer_that_was_written_half_way_is_none_at_whatever_byte(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    slot = spool.reserve()
    slot.write(ANSWER)
    part = next(tmp_path.glob("*.part"))
    whole = part.read_bytes()
    for length in [*range(60), len(whole) // 2, len(whole) - 1]:
        part.write_bytes(whole[:length])
        assert opened(tmp_path).waiting() == []
        assert not part.exists()
    part.write_bytes(whole)
    assert [each.packed for each in opened(tmp_path).waiting()] == [ANSWER]


async def test_an_answer_that_the_disk_has_changed_is_put_aside_and_no_other_is_held_up(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    await keep(spool)
    await keep(spool, b"good")
    broken = next(each for each in tmp_path.glob("*.record") if ANSWER in each.read_bytes())
    data = bytearray(broken.read_bytes())
    data[50] ^= 1
    broken.write_bytes(data)
    assert [each.packed for each in spool.waiting()] == [b"good"]
    assert len(list(tmp_path.glob("*.broken"))) == 1


async def test_files_are_for_this_user_alone_and_of_what_is_given_back_nothing_is_left(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    slot = spool.reserve()
    assert next((tmp_path / "spool").iterdir()).stat().st_mode & 0o777 == 0o600
    slot.write(ANSWER)
    slot.release()
    (part,) = (tmp_path / "spool").iterdir()
    assert part.read_bytes() == b""
    # The next one is written there, also when it is shorter.
    again = spool.reserve()
    again.write(b"short")
    assert [each.packed for each in opened(tmp_path / "spool").waiting()] == [b"short"]


async def test_a_place_that_was_used_before_keeps_its_answer_after_all_that_wait(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    slots = [spool.reserve() for _ in range(300)]
    for slot in slots:
        slot.write(ANSWER)
        slot.release()
    assert len(list(tmp_path.iterdir())) == 256, "no more than that are kept"
    await keep(spool, b"first")
    await keep(spool, b"second")
    assert [each.packed for each in spool.waiting()] == [b"first", b"second"]


def test_a_folder_that_was_removed_is_seen_before_a_token_is_sent(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    spool.reserve().release()
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(SpoolError):
        spool.reserve()


def test_a_disk_that_takes_nothing_any_more_is_seen_before_a_token_is_sent(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.reserve().release()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(SpoolError):
            spool.reserve()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_full_spool_takes_no_more_and_counts_again_after_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path, 1)
    await keep(spool)
    with pytest.raises(SpoolError):
        spool.reserve()
    spool = opened(tmp_path, 1)
    with pytest.raises(SpoolError):
        spool.reserve()
    spool.remove(spool.waiting()[0].name)
    spool.reserve().release()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SpoolError):
        opened(tmp_path / "spool")


class Around:
    """vault and coordinator around the delivery, and what happened."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.fails: dict[str, DomainError] = {}

    def unpack(self, packed: bytes) -> PackedWrite:
        return PackedWrite("ws", packed.decode(), 3, SealedWrite(packed))

    async def put(self, records: list[SealedWrite], _: Any, grant: str, __: str) -> None:
        assert grant == "grant"
        self._step(f"put {records[0].message!r}")

    async def claim_answer(self, _: str, connection: str, fence: int, __: str) -> str:
        assert fence == 3
        self._step(f"claim {connection}")
        return "grant"

    async def report_answer(self, _: str, connection: str, __: int, ___: str) -> None:
        self._step(f"report {connection}")

    def _step(self, what: str) -> None:
        self.story.append(what)
        if error := self.fails.get(what.split(maxsplit=1)[0]):
            raise error


def delivering(spool: Spool, around: Around) -> Delivering:
    return Delivering(spool, around, around, lambda: "req")  # type: ignore[arg-type]


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_what_waits_is_claimed_stored_reported_and_forgotten(tmp_path: Path) -> None:
    spool, around = opened(tmp_path), Around()
    await keep(spool, b"con_a")
    assert await delivering(spool, around).run() == 1
    assert around.story == ["claim con_a", "put b'con_a'", "report con_a"]
    assert spool.waiting() == []
    assert await delivering(spool, around).run() == 0


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.parametrize("step", ["claim", "put", "report"])
async def test_whoever_is_away_the_answer_stays_and_all_is_done_again(tmp_path: Path, step: str) -> None:
    spool, around = opened(tmp_path), Around()
    for name in (b"con_a", b"con_b"):
        await keep(spool, name)
    around.fails[step] = PeerUnavailable()
    assert await delivering(spool, around).run() == 0
    assert len(spool.waiting()) == 2
    assert not any("con_b" in each for each in around.story), "away for one is away for all"
    around.fails.clear()
    assert await delivering(opened(tmp_path), around).run() == 2


@pytest.mark.promise("P36")
@pytest.mark.parametrize("step", ["claim", "put"])
async def test_an_answer_that_nobody_waits_for_is_forgotten_and_the_next_is_delivered(
    tmp_path: Path, step: str
) -> None:
    spool, around = opened(tmp_path), Around()
    for name in (b"con_a", b"con_b"):
        await keep(spool, name)
    around.fails[step] = PeerRefused("FENCE_OUTDATED", Status.ABORTED)
    assert await delivering(spool, around).run() == 0
    assert spool.waiting() == []
    assert sum(each.startswith("claim") for each in around.story) == 2


async def test_an_answer_that_is_refused_for_another_reason_stays(tmp_path: Path) -> None:
    spool, around = opened(tmp_path), Around()
    await keep(spool, b"con_a")
    around.fails["put"] = PeerRefused("GRANT_INVALID", Status.PERMISSION_DENIED)
    assert await delivering(spool, around).run() == 0
    assert len(spool.waiting()) == 1
