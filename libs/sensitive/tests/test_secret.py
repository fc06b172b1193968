"""A secret cannot be shown by any of the ways in which values become text."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest
from authpipe.keyservice.v1 import keyservice_pb2
from authpipe.oauth.v1 import worker_pb2
from authpipe.types.v1 import records_pb2
from authpipe.vault.v1 import vault_pb2
from authpipe_sensitive import (
    Label,
    RedactedError,
    Secret,
    configure_logs,
    get_log,
    guard_generated_code,
    guard_services,
    mask,
    redacted,
)

VALUE = b"a-value-that-must-not-be-seen"


@pytest.mark.promise("P07")
def test_no_way_of_showing_a_secret_shows_it() -> None:
    secret = Secret(VALUE)
    assert "must-not" not in repr(secret)
    for show in (str, "{}".format, "%s".__mod__, bytes, list, json.dumps, pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            show(secret)
    with pytest.raises(TypeError):
        f"{secret}"  # the attempt is the test


def test_a_destroyed_secret_is_overwritten_where_it_was() -> None:
    buffer = bytearray(VALUE)
    secret = Secret.adopt(buffer)
    view = memoryview(secret.expose())
    view.release()
    with secret:
        assert bytes(secret.expose()) == VALUE
    assert not secret
    assert bytes(buffer) == b""


def test_secrets_compare_by_value_and_only_with_secrets() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(b"another")
    assert Secret(VALUE) != VALUE


@pytest.mark.promise("P08")
@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"sk_live_0123456789abcdef", "sk_l…"), (b"short-secret", "…"), (b"\xff" * 40, "…"), (b"", "…")],
)
def test_a_masked_prefix_shows_four_characters_of_a_long_value_and_nothing_of_a_short_one(
    value: bytes, shown: str
) -> None:
    assert mask(Secret(value)) == shown


@pytest.mark.promise("P07")
def test_fields_marked_as_secret_and_bytes_and_free_text_are_redacted() -> None:
    job = worker_pb2.ExchangeCodeRequest(code="the-code", redirect_uri="https://x.example/cb?secret=1")
    job.job.client_grant = "the-grant"
    job.job.workspace_id = "ws_1"
    shown = json.dumps(redacted(job))
    assert "the-code" not in shown
    assert "the-grant" not in shown
    assert "secret=1" not in shown
    assert "ws_1" in shown
    sealed = keyservice_pb2.ReleaseRecordKeysRequest(challenge=VALUE, grants=["the-grant"])
    assert redacted(sealed) == {"challenge": f"<{len(VALUE)} bytes>", "grants": ["[redacted]"]}


@pytest.mark.promise("P07")
def test_the_second_wall_redacts_str_and_repr_of_generated_classes() -> None:
    guard_generated_code([worker_pb2.ExchangeCodeRequest])
    request = worker_pb2.ExchangeCodeRequest(code="the-code")
    for text in (str(request), repr(request), f"{request}"):
        assert "the-code" not in text


@pytest.mark.promise("P07")
def test_the_second_wall_stands_around_all_that_a_service_takes_and_gives_and_what_is_in_it() -> None:
    guard_services(vault_pb2.DESCRIPTOR.services_by_name.values())
    write = records_pb2.Write(grant="the-grant")
    request = records_pb2.PutRecordsRequest(writes=[write])
    for text in (str(request), repr(request), f"{request}", str(write), f"{request.writes}"):
        assert "the-grant" not in text


@pytest.mark.promise("P07")
@pytest.mark.parametrize("value", ["a token", VALUE, {"a": 1}, [1], Secret(VALUE)])
def test_a_log_takes_nothing_that_could_be_a_secret(value: object) -> None:
    stream = io.StringIO()
    configure_logs(Label("test"), "debug", stream)
    with pytest.raises(RedactedError):
        get_log().info("something happened", value=value)
    with pytest.raises(RedactedError):
        get_log().info(f"with a value: {VALUE!r} in the Phrase")
    assert stream.getvalue() == ""


@pytest.mark.promise("P07")
def test_an_exception_in_a_log_shows_its_class_and_places_not_its_text() -> None:
    stream = io.StringIO()
    configure_logs(Label("test"), "debug", stream)
    try:
        raise ValueError(VALUE.decode())
    except ValueError as error:
        get_log().error("it failed", error=error)
    assert "ValueError" in stream.getvalue()
    assert "test_secret.py" in stream.getvalue()
    assert "must-not" not in stream.getvalue()
