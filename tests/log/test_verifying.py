"""Whoever has the public key sees that the log is whole: with our command, and with a second implementation of its pages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_cli import verifying
from authpipe_devstack.layout import LOG_NAME, TRAILS, TRUST_DOMAIN
from authpipe_testing.ca import CertificateAuthority
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.notes import VerifierKey
from authpipe_transparency.verification import Known
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from conftest import Auditor


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.promise("P31")
@pytest.mark.promise("P33")
def test_an_export_of_a_workspaces_log_verifies_offline_and_nothing_is_left_out(auditor: Auditor) -> None:
    file = auditor.covered()
    said = auditor.verify(file)
    assert said.code == 0, said.out
    assert "Sound" in said.out
    lines = lines_of(file)
    events = [line["record"]["event"] for line in lines if "position" in line]
    assert {event["workspace"] for event in events} == {lines[0]["workspace"]}
    assert [event["name"] for event in events].count("RECORD_KEY_RELEASED") >= 3
    assert len([line for line in lines if "head" in line]) == 3, "each trail ends with a statement of the log"
    # The events that are listed are those that are exported.
    listed = auditor.customer.get("/audit/events", page_size=200).json()["events"]
    assert {event["event_id"] for event in listed} >= {event["id"] for event in events}


@pytest.mark.promise("P31")
def test_a_second_implementation_agrees_about_tree_tiles_and_export(auditor: Auditor) -> None:
    file = auditor.covered()
    assert auditor.verify(file).code == 0
    keys = auditor.keys()
    for trail in TRAILS:
        origin = f"{LOG_NAME}/{trail}"
        done = auditor.second("tree", f"{auditor.stack.layout.rest_url}/log/{trail}", keys[origin])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["size"] > 3
    done = auditor.second("export", str(file), *keys.values())
    assert done.returncode == 0, done.stderr
    for section in json.loads(done.stdout):
        assert section["events"] == section["position"] == section["covered"] > 0


def sizes(auditor: Auditor) -> int:
    """Gives how many leaves all trees of the newest checkpoints have."""
    return sum(auditor.customer.get("/audit/events", page_size=1).json()["tree_sizes"].values())


@pytest.mark.promise("P31")
def test_a_later_export_is_compared_with_what_was_seen_before(auditor: Auditor) -> None:
    first = auditor.export("first.jsonl")
    assert auditor.verify(first).code == 0
    before = sizes(auditor)
    auditor.customer.import_api_key("sk_live_one-more-for-the-log-0123456789")
    while sizes(auditor) == before:
        time.sleep(0.1)
    later = auditor.export("later.jsonl")
    assert auditor.verify(later).code == 0
    # The older one shows nothing of the newer tree: it is not taken for the log as it is now.
    said = auditor.verify(first)
    assert said.code == 7, said.out


def test_a_range_of_time_shows_its_events_and_of_the_others_their_hashes(auditor: Auditor) -> None:
    whole = lines_of(auditor.export("whole.jsonl"))
    times = sorted(line["record"]["event"]["time"] for line in whole if "position" in line and "record" in line)
    middle = times[len(times) // 2]
    for option, kept in (
        ("--since", [each for each in times if each >= middle]),
        ("--until", times[: len(times) // 2]),
    ):
        part = auditor.export("part.jsonl", option, middle)
        said = auditor.verify(part)
        assert said.code == 0, said.out
        shown = [line["record"]["event"]["time"] for line in lines_of(part) if "position" in line and "record" in line]
        assert set(kept) <= set(shown)
        assert len(shown) < len(times)
        assert "outside the time" in said.out
        done = auditor.second("export", str(part), *auditor.keys().values())
        assert done.returncode == 0, done.stderr


@pytest.mark.promise("P31")
@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda lines: lines[:-1], 3),
        (lambda lines: [line for line in lines if "gap" not in line], 3),
        (lambda lines: [line for number, line in enumerate(lines) if number != first(lines, "position")], 3),
        (lambda lines: changed(lines, "record", lambda record: {**record, "sequence": record["sequence"] + 1}), 5),
        (lambda lines: changed(lines, "entry", lambda entry: entry[::-1]), 5),
        (lambda lines: changed(lines, "roots", lambda roots: [roots[0][::-1], *roots[1:]], beside="gap"), 6),
        (lambda lines: changed(lines, "checkpoint", lambda note: note.replace("\n\n", "\nx\n\n", 1)), 4),
        (lambda lines: changed(lines, "head", lambda head: [head[0] + 1, head[1]]), 8),
        (lambda lines: changed(lines, "path", lambda path: [*path, "00" * 32]), 8),
        (lambda lines: without_body(lines), 9),
        (lambda lines: [line for line in lines if "batch" not in line], 11),
        (lambda lines: changed(lines, "emitter", lambda _: "authority"), 11),
        (lambda lines: changed(lines, "root", lambda root: root[::-1]), 11),
        (
            lambda lines: changed(
                lines, "signature", lambda text: text[:60] + ("A" if text[60] != "A" else "B") + text[61:]
            ),
            11,
        ),
    ],
)
def test_an_export_that_was_edited_is_refused_and_it_says_why(
    auditor: Auditor, edit: Callable[[list[Any]], list[Any]], code: int
) -> None:
    file = auditor.covered()
    edited = auditor.folder / "edited.jsonl"
    lines = edit(lines_of(file))
    edited.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    said = auditor.verify(edited)
    assert said.code == code, said.out
    assert said.out.strip().endswith(").")
    # Nothing of it was remembered: the untouched one is sound.
    assert auditor.verify(file).code == 0


@pytest.mark.promise("P31")
def test_an_export_that_is_measured_in_several_processes_is_judged_as_by_one(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = auditor.covered()
    assert auditor.verify(file).code == 0
    lines = lines_of(file)
    known = {origin: VerifierKey.parse(key) for origin, key in auditor.keys().items()}
    monkeypatch.setattr(verifying, "_ALONE_BYTES", 0)
    monkeypatch.setattr(verifying, "_PIECE_BYTES", 1500)
    monkeypatch.setattr(verifying.os, "cpu_count", lambda: 2)
    told: list[int] = []
    sections = verifying.verify(file, Known(known), told.append)
    assert sum(section.events for section in sections) == len([line for line in lines if "position" in line])
    assert len(told) > 4
    assert sum(told) == file.stat().st_size
    edited = auditor.folder / "edited.jsonl"
    for edit, kind in (
        (lambda: changed(lines, "entry", lambda entry: entry[::-1]), Kind.CHANGED),
        # What is found late finds pieces on their way, finished and waiting.
        *((partial(with_another_entry, lines, nth), Kind.CHANGED) for nth in (10, 11, 12, 13, 14)),
        (lambda: changed(lines, "root", lambda root: root[::-1]), Kind.EMITTER),
        (lambda: lines[:-1], Kind.FORMAT),
    ):
        edited.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in edit()))
        with pytest.raises(Finding) as found:
            verifying.verify(edited, Known(known), told.append)
        assert found.value.kind is kind
    edited.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(Finding, match="cut"):
        verifying.verify(edited, Known(known), told.append)


def with_another_entry(lines: list[Any], nth: int) -> list[Any]:
    """Changes the n-th event that is shown."""
    at = [number for number, line in enumerate(lines) if "position" in line and "record" in line][nth]
    return [{**line, "entry": line["entry"][::-1]} if number == at else line for number, line in enumerate(lines)]


def first(lines: list[Any], member: str) -> int:
    return next(number for number, line in enumerate(lines) if member in line)


def changed(lines: list[Any], member: str, change: Callable[[Any], Any], beside: str = "") -> list[Any]:
    at = first(lines, beside or member)
    return [{**line, member: change(line[member])} if number == at else line for number, line in enumerate(lines)]


def without_body(lines: list[Any]) -> list[Any]:
    """Takes the body of an event that stands between two others; the one after it is of the same batch."""
    shown = [number for number, line in enumerate(lines) if "position" in line and "record" in line]
    at = next(number for number in shown[1:] if number + 1 in shown and "head" not in lines[number + 1])
    bare = {name: lines[at][name] for name in ("leaf", "position", "entry")}
    return [bare if number == at else line for number, line in enumerate(lines)]


@pytest.mark.case(29)
@pytest.mark.promise("P31")
def test_who_knows_the_emitters_ca_sees_that_every_event_is_its_emitters(auditor: Auditor, tmp_path: Path) -> None:
    file = auditor.covered()
    said = auditor.verify(file, "--emitters", str(auditor.stack.ca.certificate_file), "--trust-domain", TRUST_DOMAIN)
    assert said.code == 0, said.out
    assert "was not looked at" not in said.out
    another = CertificateAuthority(tmp_path, "another").certificate_file
    assert auditor.verify(file, "--emitters", str(another), "--trust-domain", TRUST_DOMAIN).code == 11
    ca = str(auditor.stack.ca.certificate_file)
    assert auditor.verify(file, "--emitters", ca, "--trust-domain", "another.example").code == 11
    assert auditor.verify(file, "--emitters", str(file), "--trust-domain", TRUST_DOMAIN).code == 1
    assert auditor.verify(file, "--emitters", ca).code == 2


@pytest.mark.promise("P33")
def test_the_log_is_exported_by_grpc_as_by_rest(auditor: Auditor) -> None:
    credentials = grpc.ssl_channel_credentials(auditor.stack.public_ca.certificate_file.read_bytes())
    metadata = (("authorization", auditor.customer.http.headers["authorization"]),)
    lines, token = b"", ""
    with grpc.secure_channel(auditor.stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        for trail in TRAILS:
            while True:
                request = gateway_pb2.ExportAuditLogRequest(trail=trail, page_token=token)
                page = gateway.ExportAuditLog(request, metadata=metadata)
                lines, token = lines + page.lines, page.next_page_token
                if not token:
                    break
        malformed, nothing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
        never = Timestamp(seconds=10**15)
        for call, wrong, code in (
            (gateway.ExportAuditLog, gateway_pb2.ExportAuditLogRequest(trail="control", page_token="none"), malformed),
            (gateway.ExportAuditLog, gateway_pb2.ExportAuditLogRequest(trail="none"), nothing),
            (gateway.ExportAuditLog, gateway_pb2.ExportAuditLogRequest(trail="control", since=never), malformed),
            (gateway.ListAuditEvents, gateway_pb2.ListAuditEventsRequest(until=never), malformed),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(wrong, metadata=metadata)
            assert refused.value.code() is code
    file = auditor.folder / "grpc.jsonl"
    file.write_bytes(lines)
    said = auditor.verify(file)
    assert said.code == 0, said.out


@pytest.mark.promise("P31")
def test_every_event_of_a_use_says_from_where_by_whom_what_for_and_under_which_grant(auditor: Auditor) -> None:
    customer = auditor.customer
    forged = {"x-forwarded-for": "198.51.100.1"}
    (connection, *_) = customer.get("/connections").json()["connections"]
    assert customer.http.get(f"/v1/connections/{connection['id']}/token", headers=forged).status_code == 200
    events = customer.get("/audit/events", page_size=200).json()["events"]
    uses = [event for event in events if event["event"] == "RECORD_KEY_RELEASED" and event["purpose"] == "serve"]
    assert uses
    for use in uses:
        assert use["source_address"] == "127.0.0.1"
        assert all(
            use[name] for name in ("actor", "target", "request_id", "grant_id", "record_class", "record_version")
        )
    # Every trace is kept here: the event leads to it.
    assert any(use["trace_id"] for use in uses)
    made = next(event for event in events if event["event"] == "RECORDS_WRITTEN")
    assert len(made["digest"]) == 64
    assert made["source_address"] == "127.0.0.1"


# What OCSF 1.3 requires of an event of class API Activity, and of the objects in it.
OCSF_REQUIRED = (
    ("activity_id",), ("actor", "user", "uid"), ("api", "operation"), ("api", "request", "uid"), ("category_uid",),
    ("class_uid",), ("metadata", "version"), ("metadata", "product", "name"), ("severity_id",), ("src_endpoint",),
    ("time",), ("type_uid",),
)  # fmt: skip


@pytest.mark.promise("P33")
def test_the_log_is_exported_as_ocsf_too(auditor: Auditor) -> None:
    for trail in TRAILS:
        proofs = auditor.customer.get("/audit/export", trail=trail).text.splitlines()
        events = [json.loads(line)["record"]["event"] for line in proofs if '"position"' in line and '"record"' in line]
        answer = auditor.customer.get("/audit/export", trail=trail, format="ocsf")
        shown = [json.loads(line) for line in answer.text.splitlines()]
        assert [each["metadata"]["uid"] for each in shown][: len(events)] == [event["id"] for event in events]
        for each in shown:
            for path in OCSF_REQUIRED:
                value = each
                for name in path:
                    value = value[name]
                assert value not in (None, ""), path
            assert each["type_uid"] == 600_300 + each["activity_id"]
            assert each["time"] > 1_700_000_000_000


def test_another_workspaces_log_is_neither_listed_nor_exported(
    auditor: Auditor, stranger: Any, superuser: Callable[[str, str], Any]
) -> None:
    (use, *_) = auditor.customer.get("/audit/events", event="RECORD_KEY_RELEASED").json()["events"]
    assert stranger.get("/audit/events", id=use["event_id"]).json()["events"] == []
    exported = stranger.get("/audit/export", trail="user-credentials").text
    assert use["event_id"] not in exported
    with superuser("core", "audit") as audit:
        (workspace,) = audit.execute(
            "select workspace_id from bodies where position(%s in record) > 0", (use["event_id"],)
        ).fetchone()
    assert workspace not in exported


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("control/tile/0/000", 404),
        ("control/tile/0/x999/999", 404),
        ("control/tile/..%2f0/000.p/1", 404),
        ("control/tile/0/000.p/0", 404),
        ("nothing/checkpoint", 404),
        ("control/checkpoint", 200),
        ("control/tile/0/000.p/1", 200),
    ],
)
def test_of_the_tree_the_newest_checkpoint_decides_what_is_there(auditor: Auditor, path: str, status: int) -> None:
    if path.endswith("/000"):
        checkpoint = auditor.customer.http.get("/log/control/checkpoint").text
        if int(checkpoint.split("\n")[1]) >= 256:
            status = 200
    answer = auditor.customer.http.get(f"/log/{path}")
    assert answer.status_code == status
    if status == 200:
        assert "cache-control" in answer.headers
