"""Pages of a listing that do not move: a page token holds the sizes of the trees that the first page was made of."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import PageTokenError

_TOKEN = re.compile(r"([1-3])\.([0-9]{1,18})\.([0-9]{1,18})((?:\.[0-9]{1,18}){3})", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Place(NamedTuple):
    """Where an event stands in the order of a listing: newest first, by its time."""

    time: dt.datetime
    trail: int
    leaf_index: int


class Wanted(NamedTuple):
    """What is looked for; what is empty does not filter.

    Args:
        workspace: The tenant.
        sizes: Only leaves before these, by trail: the listing is as of these trees.
        trail: Only of this trail.
        name: Only this event.
        outcome: Only this outcome.
        actor: Only on behalf of this one.
        target: Only on this.
        some_id: Only with this id, wherever it stands.
        since: Only from then on.
        until: Only before then.
        after: Only what comes behind this place.
    """

    workspace: str
    sizes: dict[Trail, int]
    trail: Trail | None
    name: str
    outcome: str
    actor: str
    target: str
    some_id: str
    since: dt.datetime | None
    until: dt.datetime | None
    after: Place | None


@dataclass(frozen=True, slots=True)
class PageToken:
    """Where a page ended, and of which trees the listing is."""

    sizes: dict[Trail, int]
    place: Place

    def encode(self) -> str:
        """Gives it as text. It says nothing that is not the caller's to know: a wrong one finds nothing of anybody's."""
        micros = (self.place.time - _EPOCH) // _MICROSECOND
        numbers = [self.place.trail, micros, self.place.leaf_index, *(self.sizes[trail] for trail in Trail)]
        return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Reads it.

        Raises:
            PageTokenError: It is none.
        """
        try:
            found = _TOKEN.fullmatch(base64.urlsafe_b64decode(text).decode())
            if found is None:
                raise PageTokenError
            place = Place(_EPOCH + int(found[2]) * _MICROSECOND, int(found[1]), int(found[3]))
        except (ValueError, OverflowError, binascii.Error):
            raise PageTokenError from None
        sizes = [int(size) for size in found[4].split(".")[1:]]
        return cls(dict(zip(Trail, sizes, strict=True)), place)
