"""Each detector: the attack it finds, and the ordinary days at which it says nothing."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import pytest
from authpipe_audit.domain.detecting.enumerating import distinct
from authpipe_audit.domain.detecting.places import range_of
from authpipe_audit.domain.detecting.watching import by_name, detectors, look, matches
from authpipe_audit.domain.detecting.words import DAY, HOUR, MINUTE, Finding, Profile, Seen, Subject
from authpipe_audit.domain.trails import Trail
from hypothesis import given
from hypothesis import strategies as st

START = 20_000 * DAY
KEY = "api_key:key_1"


class Traffic:
    """Events, one after the other, and what the detectors say of them."""

    def __init__(self, bound: int = 600_000) -> None:
        self.detectors = by_name(detectors(bound))
        self.profiles: dict[Subject, Profile] = {}
        self.leaf = 0

    def seen(self, at: float, name: str = "RECORD_KEY_RELEASED", **fields: str) -> Seen:
        usual = {
            "emitter": "keyservice/user-credentials" if "RELEASE" in name else "oauth/coordinator",
            "workspace": "ws_1", "actor": KEY, "target": "conn_1", "purpose": "serve", "source": "192.0.2.7",
        }  # fmt: skip
        self.leaf += 1
        micros = round(at % 1 * 1_000_000)
        return Seen(Trail.USER_CREDENTIALS, self.leaf, at=START + int(at), name=name, micros=micros, **(usual | fields))

    def look(self, events: Iterable[Seen]) -> list[Finding]:
        return look(matches(self.detectors, events), self.profiles)

    def words(self, events: Iterable[Seen]) -> list[str]:
        return [finding.detector for finding in self.look(events)]

    def usual_days(
        self, days: int, uses_an_hour: int = 20, hours: range = range(8, 18), first: int = 0
    ) -> Iterator[Seen]:
        for day in range(first, first + days):
            for hour in hours:
                for nth in range(uses_an_hour):
                    yield self.seen(
                        day * DAY + hour * HOUR + nth * (HOUR // uses_an_hour), target=f"conn_{nth % 5}"
                    )  # fmt: skip


@pytest.fixture
def traffic() -> Traffic:
    """A workspace of which nothing is known."""
    return Traffic()


@pytest.mark.promise("P26")
def test_two_usual_weeks_are_nothing_to_talk_about(traffic: Traffic) -> None:
    assert traffic.words(traffic.usual_days(14)) == []


@pytest.mark.promise("P26")
@pytest.mark.parametrize(
    ("burst", "targets", "word"),
    [(150, 1, "CONNECTION_ABOVE_BASELINE"), (650, 10, "API_KEY_ABOVE_BASELINE")],
)
def test_far_more_uses_than_ever_at_this_hour_are_found(traffic: Traffic, burst: int, targets: int, word: str) -> None:
    traffic.look(traffic.usual_days(7))
    noon = 7 * DAY + 12 * HOUR
    found = traffic.look(traffic.seen(noon + nth, target=f"conn_{nth % targets}") for nth in range(burst))
    assert word in [each.detector for each in found]
    assert all(each.subject.workspace == "ws_1" for each in found)


def test_a_nightly_batch_is_usual_at_night_and_alarming_at_noon(traffic: Traffic) -> None:
    def batch(day: int, hour: int) -> Iterator[Seen]:
        return (traffic.seen(day * DAY + hour * HOUR + nth, target=f"conn_{nth % 40}") for nth in range(2000))

    for day in range(8):
        said = traffic.words(batch(day, 3))
        assert "API_KEY_ABOVE_BASELINE" not in said
    assert "API_KEY_ABOVE_BASELINE" not in traffic.words(batch(8, 3))
    assert "API_KEY_ABOVE_BASELINE" in traffic.words(batch(8, 12))


def test_an_attack_does_not_become_what_is_usual(traffic: Traffic) -> None:
    traffic.look(traffic.usual_days(7))
    for day in (7, 8):
        flood = [traffic.seen(day * DAY + 12 * HOUR + nth, target=f"conn_{nth % 10}") for nth in range(1500)]
        assert "API_KEY_ABOVE_BASELINE" in traffic.words(flood), day


@pytest.mark.promise("P26")
def test_a_key_that_is_used_from_elsewhere_is_found_once(traffic: Traffic) -> None:
    traffic.look(traffic.usual_days(5))
    noon = 5 * DAY + 12 * HOUR
    assert traffic.words([traffic.seen(noon, source="192.0.2.200")]) == [], "the same range"
    assert traffic.words([traffic.seen(noon + 1, source="203.0.113.9")]) == ["API_KEY_NEW_ADDRESS_RANGE"]
    assert traffic.words([traffic.seen(noon + 2, source="203.0.113.77")]) == []
    assert traffic.words([traffic.seen(noon + HOUR + 2, source="2001:db8:77::1")]) == ["API_KEY_NEW_ADDRESS_RANGE"]


def test_a_key_that_comes_from_everywhere_says_nothing_by_that(traffic: Traffic) -> None:
    said = []
    for day in range(12):
        for nth in range(60):
            event = traffic.seen(day * DAY + 9 * HOUR + nth, source=f"198.51.{day}.{nth}")
            said += traffic.words([event])
    assert len(said) <= 3, "until it is known that it roams"


def test_a_key_that_works_by_day_is_found_when_it_works_at_night(traffic: Traffic) -> None:
    traffic.look(traffic.usual_days(10))
    night = 10 * DAY + 3 * HOUR
    assert traffic.words([traffic.seen(night)]) == ["API_KEY_UNUSUAL_HOUR"]
    assert traffic.words([traffic.seen(10 * DAY + 19 * HOUR)]) == [], "an hour later than usual is nothing"


@pytest.mark.promise("P26")
def test_a_key_that_goes_through_all_connections_is_found(traffic: Traffic) -> None:
    traffic.look(traffic.usual_days(5))
    noon = 5 * DAY + 12 * HOUR
    said = traffic.words(traffic.seen(noon + nth, target=f"conn_new_{nth}") for nth in range(90))
    assert "API_KEY_ENUMERATES" in said


def test_a_job_that_goes_through_all_connections_every_monday_is_usual(traffic: Traffic) -> None:
    said = []
    for week in range(4):
        monday = week * 7 * DAY + 4 * HOUR
        said += traffic.words(traffic.seen(monday + nth, target=f"conn_{nth}") for nth in range(300))
    assert "API_KEY_ENUMERATES" not in said


@pytest.mark.promise("P26")
def test_a_key_that_guesses_ids_is_found(traffic: Traffic) -> None:
    guesses = (
        traffic.seen(nth, "RECORDS_REFUSED", emitter="vault", reason="RECORD_NOT_FOUND", target=f"conn_guess_{nth}")
        for nth in range(25)
    )
    assert traffic.words(guesses) == ["API_KEY_ENUMERATES"]


def test_a_client_that_asks_for_one_wrong_id_again_and_again_enumerates_nothing(traffic: Traffic) -> None:
    asks = (traffic.seen(nth, "RECORDS_REFUSED", emitter="vault", reason="RECORD_NOT_FOUND") for nth in range(500))
    assert traffic.words(asks) == []


@pytest.mark.promise("P26")
def test_a_connection_that_is_refreshed_again_and_again_is_found(traffic: Traffic) -> None:
    assert traffic.words(traffic.seen(5 * MINUTE * nth, "TOKEN_REFRESHED") for nth in range(200)) == []
    assert traffic.words(traffic.seen(DAY + nth * 20, "TOKEN_REFRESHED") for nth in range(40)) == [
        "CONNECTION_REFRESH_STORM"
    ]


@pytest.mark.promise("P26")
def test_a_provider_that_refuses_half_of_all_refreshes_is_found(traffic: Traffic) -> None:
    def refreshes(at: int, fails: int) -> Iterator[Seen]:
        for nth in range(60):
            name = "REFRESH_FAILED" if nth % 10 < fails else "TOKEN_REFRESHED"
            yield traffic.seen(at + nth, name, workspace=f"ws_{nth}", target=f"conn_{nth}", provider="google")

    assert traffic.words(refreshes(0, 2)) == []
    (found,) = traffic.look(refreshes(2 * HOUR, 8))
    assert (found.detector, found.subject) == ("PROVIDER_REFRESH_FAILURES", ("", "google"))


@pytest.mark.promise("P26")
def test_releases_near_the_bound_are_found_before_keyservice_refuses() -> None:
    traffic = Traffic(bound=1000)
    assert traffic.words(traffic.seen(nth // 20, actor="service:oauth/coordinator") for nth in range(790)) == []
    assert traffic.words(traffic.seen(50, actor="service:oauth/coordinator") for _ in range(10)) == [
        "WORKSPACE_NEAR_RELEASE_BOUND"
    ]


@pytest.mark.promise("P26")
def test_keys_that_are_released_together_count_each_for_itself() -> None:
    traffic = Traffic(bound=1000)
    together = [traffic.seen(nth // 20, "WRITE_KEY_RELEASED")._replace(records=4) for nth in range(200)]
    assert traffic.words(together[:199]) == []
    assert traffic.words(together[199:]) == ["WORKSPACE_NEAR_RELEASE_BOUND"]


@pytest.mark.promise("P26")
def test_use_of_a_disconnected_connection_is_found_but_not_of_whoever_has_not_heard_of_it(traffic: Traffic) -> None:
    def asks(at: int) -> list[str]:
        fields = {"emitter": "vault", "reason": "CONNECTION_DISCONNECTED"}
        return traffic.words([traffic.seen(at, "RECORDS_REFUSED", **fields)])

    traffic.look([traffic.seen(0, "CONNECTION_DISCONNECTING")])
    assert asks(10 * MINUTE) == []
    assert asks(2 * HOUR) == ["DISCONNECTED_CONNECTION_USED"]
    assert traffic.words([traffic.seen(4 * HOUR)]) == ["DISCONNECTED_CONNECTION_USED"], "a key was even released"


@pytest.mark.promise("P26")
@pytest.mark.parametrize(("late", "found"), [(30, False), (2 * HOUR, True)])
def test_a_use_that_is_seen_before_its_disconnect_is_judged_when_that_is_seen(
    traffic: Traffic, late: int, found: bool
) -> None:
    assert traffic.words([traffic.seen(late)]) == []
    assert bool(traffic.words([traffic.seen(0, "CONNECTION_DISCONNECTING")])) == found


def test_who_asks_before_it_is_seen_that_it_was_disconnected_is_no_alarm(traffic: Traffic) -> None:
    fields = {"emitter": "vault", "reason": "CONNECTION_DISCONNECTED"}
    assert traffic.words([traffic.seen(5, "RECORDS_REFUSED", **fields)]) == []
    assert traffic.words([traffic.seen(0, "CONNECTION_DISCONNECTING")]) == []
    assert traffic.words([traffic.seen(2 * HOUR, "RECORDS_REFUSED", **fields)]) == ["DISCONNECTED_CONNECTION_USED"]


@pytest.mark.promise("P26")
def test_a_decoy_that_is_used_before_it_is_seen_that_it_is_one_is_found(traffic: Traffic) -> None:
    assert traffic.words([traffic.seen(1.25)]) == []
    assert traffic.words([traffic.seen(1.0, "DECOY_PLACED")]) == ["HONEYTOKEN_USED"]


def test_what_was_used_before_it_became_a_decoy_is_no_alarm(traffic: Traffic) -> None:
    assert traffic.words([traffic.seen(1.0), traffic.seen(1.25, "DECOY_PLACED")]) == []


def test_a_connection_that_was_taken_back_may_be_used(traffic: Traffic) -> None:
    traffic.look([traffic.seen(0, "CONNECTION_DISCONNECTING"), traffic.seen(HOUR, "CONNECTION_RESTORED")])
    assert traffic.words([traffic.seen(3 * HOUR)]) == []


@pytest.mark.promise("P26")
@pytest.mark.parametrize(
    ("name", "emitter"),
    [
        ("RECORD_KEY_RELEASED", "keyservice/user-credentials"),
        ("RECORD_KEY_REUSED", "vault"),
        ("RECORDS_REFUSED", "vault"),
    ],
)
def test_whoever_touches_a_decoy_is_found_and_nobody_else(traffic: Traffic, name: str, emitter: str) -> None:
    traffic.look([traffic.seen(0, "DECOY_PLACED", target="conn_decoy")])
    assert traffic.words([traffic.seen(1), traffic.seen(2, purpose="refresh", target="conn_decoy")]) == []
    assert traffic.words([traffic.seen(3, name, emitter=emitter, target="conn_decoy")]) == ["HONEYTOKEN_USED"]


@pytest.mark.promise("P26")
@pytest.mark.parametrize(
    ("name", "emitter"), [("RECORD_KEY_REUSED", "keyservice/user-credentials"), ("RECORD_KEY_RELEASED", "vault")]
)
def test_a_use_counts_when_the_part_says_so_that_allows_it(traffic: Traffic, name: str, emitter: str) -> None:
    traffic.look([traffic.seen(0, "DECOY_PLACED", target="conn_decoy")])
    assert traffic.words([traffic.seen(3, name, emitter=emitter, target="conn_decoy")]) == []


def test_only_coordinator_says_what_is_a_decoy_or_disconnected(traffic: Traffic) -> None:
    for name in ("DECOY_PLACED", "CONNECTION_DISCONNECTING"):
        traffic.look([traffic.seen(0, name, emitter="vault")])
    assert traffic.words([traffic.seen(2 * HOUR)]) == []


@pytest.mark.parametrize(
    "name",
    [
        "AUTHORIZATION_ROW_FORGED", "INTEGRITY_VIOLATION", "RELEASE_BUDGET_EXCEEDED", "CLOCK_DIFFERS", "ROTATION_BEGUN",
        "API_KEYS_REVOKED", "WORKSPACE_FROZEN",
    ],
)  # fmt: skip
def test_what_others_call_an_alarm_is_one_once_an_hour(traffic: Traffic, name: str) -> None:
    assert traffic.words(traffic.seen(nth, name) for nth in range(5)) == [name]
    assert traffic.words([traffic.seen(HOUR + 4, name)]) == [name]


@pytest.mark.promise("P26")
def test_what_a_detector_finds_does_not_depend_on_how_the_log_is_cut() -> None:
    def events(traffic: Traffic) -> list[Seen]:
        noon = 5 * DAY + 12 * HOUR
        flood = [traffic.seen(noon + nth, target=f"conn_{nth}", source="203.0.113.1") for nth in range(700)]
        return [*traffic.usual_days(5), *flood]

    whole, cut = Traffic(), Traffic()
    expected = whole.look(events(whole))
    assert expected
    found, rest = [], events(cut)
    for size in (1, 7, 300, 5000):
        part, rest = rest[:size], rest[size:]
        # What is remembered goes through the store in between.
        watched = matches(cut.detectors, part)
        written = {of: {word: dict(state) for word, state in each.items()} for of, each in cut.profiles.items()}
        profiles = {of: written[of] for _, of, _ in watched if of in written}
        found += look(watched, profiles)
        cut.profiles = written | profiles
    assert found + cut.look(rest) == expected


@given(st.sets(st.integers(0, 10**6), max_size=2000))
def test_counting_by_bitmap_is_near_the_truth(values: set[int]) -> None:
    bitmap = 0
    for value in values:
        bitmap |= 1 << (zlib.crc32(str(value).encode()) % 4096)
    assert abs(distinct(bitmap) - len(values)) <= max(8, len(values) * 0.15)


def test_what_is_remembered_is_bounded(traffic: Traffic) -> None:
    for day in range(60):
        for nth in range(100):
            source = f"2001:db8:{day:x}{nth:02x}::1"
            traffic.look([traffic.seen(day * DAY + nth * 800, target=f"conn_{nth}", source=source)])
    of_key = traffic.profiles[Subject("ws_1", KEY)]
    assert len(of_key) == 4
    assert max(map(len, of_key.values())) < 400


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48"), ("unknown", ""), ("", "")],
)
def test_ranges(address: str, expected: str) -> None:
    assert range_of(address) == expected
