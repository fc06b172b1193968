"""Sinks against real servers, and what becomes of what they do not take."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import hmac
import json
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from authpipe_herald.config import Config, EmailConfig, OwnersConfig, WebhookConfig
from authpipe_herald.domain.messages import FOUND, subject_line, text
from authpipe_herald.domain.telling import Telling
from authpipe_herald.domain.words import Notice
from authpipe_herald.errors import SinkError
from authpipe_herald.sinks import EmailSink, OwnersSink, WebhookSink
from pydantic import HttpUrl, ValidationError

# The SMTP server does not know of TLS that is there before it is asked.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
OPENED = dt.datetime(2026, 11, 26, 22, 0, tzinfo=dt.UTC)
NOTICE = Notice(
    "inc_" + "0" * 24, "OPENED", 0, "HONEYTOKEN_USED", "CRITICAL", "ws_1", "con_1", OPENED,
    OPENED + dt.timedelta(hours=24), "OPEN",
)  # fmt: skip
SECRET = base64.b64encode(b"s" * 32)


@pytest.fixture
def webhook(web: Any, certificates: Any, tmp_path: Path) -> WebhookSink:
    """A webhook."""
    (tmp_path / "secret").write_bytes(b"whsec_" + SECRET + b"\n")
    config = WebhookConfig(name="ops", url=HttpUrl(web.url), secret_file=tmp_path / "secret", ca=certificates.ca)
    return WebhookSink(config)


@pytest.fixture
def mailbox(mail: Any, certificates: Any, tmp_path: Path) -> EmailSink:
    """A mailbox."""
    (tmp_path / "password").write_text("of a mailbox\n")
    _, port, implicit = mail
    return EmailSink(
        EmailConfig(
            name="mail",
            host="127.0.0.1",
            port=port,
            implicit_tls=implicit,
            sender="herald@authpipe.example",
            recipients=("security@authpipe.example", "oncall@authpipe.example"),
            user="herald",
            password_file=tmp_path / "password",
            ca=certificates.ca,
        )
    )


@pytest.mark.promise("P26")
async def test_a_webhook_is_signed_and_says_what_was_found(webhook: WebhookSink, web: Any) -> None:
    await webhook.tell(NOTICE)
    ((path, headers, body),) = web.got
    told = json.loads(body)
    assert (path, told["type"], told["severity"], told["subject"]) == (
        "/alarms",
        "incident.opened",
        "CRITICAL",
        "con_1",
    )
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"s" * 32, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    await webhook.tell(NOTICE)
    assert web.got[1][1]["webhook-id"] == headers["webhook-id"], "whoever gets it twice knows"
    await webhook.close()


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_a_webhook_that_does_not_say_yes_has_not_been_told(webhook: WebhookSink, web: Any, status: int) -> None:
    web.answers = [status]
    with pytest.raises(SinkError):
        await webhook.tell(NOTICE)
    assert [path for path, _, _ in web.got] == ["/alarms"], "no redirect is followed"
    await webhook.close()


async def test_a_server_that_nobody_vouches_for_is_not_told(web: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"whsec_" + SECRET)
    sink = WebhookSink(WebhookConfig(name="ops", url=HttpUrl(web.url), secret_file=tmp_path / "secret"))
    with pytest.raises(SinkError):
        await sink.tell(NOTICE)
    assert web.got == []
    await sink.close()


@pytest.mark.promise("P26")
async def test_mail_arrives_over_tls_with_what_was_found_and_what_to_do(mailbox: EmailSink, mail: Any) -> None:
    await mailbox.tell(NOTICE)
    (envelope,) = mail[0].got
    message = message_from_bytes(envelope.content, policy=policy.default)
    assert envelope.rcpt_tos == ["security@authpipe.example", "oncall@authpipe.example"]
    assert message["Subject"] == "[Authpipe] CRITICAL: Incident: honeytoken used"
    assert message["Auto-Submitted"] == "auto-generated"
    said = message.get_content()
    for part in ("con_1", "decoy", "2026-11-27 22:00 UTC", f"authpipe-admin incidents show {NOTICE.incident}"):
        assert part in said


@pytest.fixture
def owners(mail: Any, certificates: Any, tmp_path: Path) -> OwnersSink:
    """The owners of a workspace."""
    (tmp_path / "password").write_text("of a mailbox\n")
    _, port, implicit = mail

    async def of(workspace: str) -> tuple[str, list[str]]:
        return "Shop", [f"ada@{workspace.replace('_', '-')}.example", "grace@people.example"]

    return OwnersSink(
        OwnersConfig(
            name="owners",
            host="127.0.0.1",
            port=port,
            implicit_tls=implicit,
            sender="herald@authpipe.example",
            user="herald",
            password_file=tmp_path / "password",
            ca=certificates.ca,
            dashboard_url="https://dashboard.example",
        ),
        of,
    )


@pytest.mark.promise("P27")
async def test_each_owner_of_a_workspace_is_told_alone_and_sees_no_other_owner(owners: OwnersSink, mail: Any) -> None:
    await owners.tell(NOTICE._replace(detector="ROTATION_BEGUN", severity="MEDIUM", subject="ws_1"))
    first, second = (message_from_bytes(each.content, policy=policy.default) for each in mail[0].got)
    assert [each.rcpt_tos for each in mail[0].got] == [["ada@ws-1.example"], ["grace@people.example"]]
    assert "grace" not in first.as_string()
    assert first["Message-ID"] != second["Message-ID"]
    said = first.get_content()
    for part in ("Shop (ws_1)", "every token replaced", "https://dashboard.example/dashboard#incidents"):
        assert part in said
    assert "authpipe-admin" not in said


@pytest.mark.promise("P27")
@pytest.mark.parametrize(
    "notice",
    [
        NOTICE._replace(kind="CHANGED", number=1),
        NOTICE._replace(kind="DUE_IN_1_HOUR"),
        NOTICE._replace(workspace=""),
        NOTICE._replace(notify_by=None, severity="LOW"),
    ],
)
async def test_owners_are_told_once_and_only_what_concerns_their_workspace(
    owners: OwnersSink, mail: Any, notice: Notice
) -> None:
    await owners.tell(notice)
    assert mail[0].got == []


@pytest.mark.promise("P27")
async def test_owners_who_could_not_be_told_are_told_later(owners: OwnersSink, mail: Any) -> None:
    mail[0].refuses = True
    with pytest.raises(SinkError):
        await owners.tell(NOTICE)
    mail[0].refuses = False
    await owners.tell(NOTICE)
    assert len(mail[0].got) == 2


async def test_mail_that_is_not_taken_has_not_been_told(mailbox: EmailSink, mail: Any) -> None:
    mail[0].refuses = True
    with pytest.raises(SinkError):
        await mailbox.tell(NOTICE)


class Audit:
    """audit: what was not told yet."""

    def __init__(self, *notices: Notice) -> None:
        self.waiting = {"ops": list(notices), "mail": list(notices)}

    async def pending(self, sink: str) -> list[Notice]:
        """Gives what waits."""
        return list(self.waiting[sink])

    async def confirm(self, sink: str, notice: Notice) -> None:
        """Takes one off."""
        self.waiting[sink].remove(notice)


@pytest.mark.promise("P26")
async def test_a_sink_that_fails_holds_up_itself_alone_and_is_told_later_in_order(
    webhook: WebhookSink, web: Any
) -> None:
    class Silent:
        name = "mail"
        told: list[str] = []  # noqa: RUF012  # one test's

        async def tell(self, notice: Notice) -> None:
            self.told.append(notice.kind)

        async def close(self) -> None:
            """Has nothing open."""

    second = NOTICE._replace(kind="CHANGED", number=1, state="ACKNOWLEDGED")
    audit, silent = Audit(NOTICE, second), Silent()
    telling = Telling(audit)
    web.answers = [500]
    assert await asyncio.gather(telling.tell(webhook), telling.tell(silent)) == [0, 2]
    assert audit.waiting == {"ops": [NOTICE, second], "mail": []}
    assert await telling.tell(webhook) == 2
    assert [json.loads(body)["type"] for _, _, body in web.got[1:]] == ["incident.opened", "incident.changed"]
    await webhook.close()


@pytest.mark.parametrize("detector", FOUND)
def test_every_detector_has_a_sentence_without_a_secret_in_it(detector: str) -> None:
    notice = NOTICE._replace(detector=detector)
    assert FOUND[detector] in text(notice)
    assert detector.lower().replace("_", " ") in subject_line(notice)


def test_reminders_say_what_is_left() -> None:
    assert "1 hour left" in subject_line(NOTICE._replace(kind="DUE_IN_1_HOUR"))
    assert "over" in subject_line(NOTICE._replace(kind="OVERDUE"))


@pytest.mark.case(28)
@pytest.mark.parametrize(
    "sinks",
    [
        {},
        {"webhooks": [{"name": "a", "url": "http://example.com/", "secret_file": "/s"}]},
        {"webhooks": [{"name": "a", "url": "https://example.com/", "secret_file": "/s"}] * 2},
        {"webhooks": [{"name": "a", "url": "https://", "secret_file": "/s"}]},
        {"webhooks": [{"name": "a", "url": "https://example.com:99999/", "secret_file": "/s"}]},
        {"emails": [{"name": "m", "host": "h", "sender": "a@b", "recipients": []}]},
        {"emails": [{"name": "m", "host": "h", "sender": "a@b", "recipients": ["c@d\r\nBcc: e@f"]}]},
        {"emails": [{"name": "m", "host": "h", "sender": "a@b", "recipients": ["c@d, e@f"]}]},
        {"owners": {"name": "o", "host": "h", "sender": "a@b", "dashboard_url": "https://d.example"}},
    ],
)
def test_without_anybody_who_listens_it_does_not_start(sinks: dict[str, Any]) -> None:
    files = {"certificate": "/c", "key": "/k", "ca": "/a", "trust_domain": "t"}
    given = {
        "region": "r", "files": files, "server": {"host": "127.0.0.1", "port": 1},
        "audit": {"name": "audit", "address": "127.0.0.1:2"},
    }  # fmt: skip
    with pytest.raises(ValidationError):
        Config.model_validate(given | sinks)


def test_a_secret_that_is_none_is_told_in_a_sentence(tmp_path: Path) -> None:
    for content in (b"", b"whsec_short", b"whsec_" + base64.b64encode(b"x" * 8)):
        (tmp_path / "secret").write_bytes(content)
        with pytest.raises(SystemExit, match="24 to 64 random bytes"):
            WebhookSink(WebhookConfig(name="a", url=HttpUrl("https://a.example/"), secret_file=tmp_path / "secret"))
