r"""The export of a trail: JSON Lines that prove what they say, when they are read from top to bottom.

Whoever reads them grows a tree: a leaf adds its hash, a gap adds the roots of the subtrees in it. At the end stands the
root of the checkpoint. So every event is proved to be in the tree, at its place, by a few hashes a gap. Each line is JSON
with its members in this order and no spaces; hashes are in hexadecimal.

{"export":1,"origin":"…","workspace":"ws_…","since":"…","until":"…","key":"<vkey>","checkpoint":"<note>"}
{"gap":[start,end],"roots":["…"]}                     leaves of others: the roots of the full subtrees, as `merkle.gap_ranges` cuts
{"leaf":17,"position":3,"entry":"…","record":{…},"salt":"…"}
                                                      an event: entry = SHA-256(salt ‖ record)
{"leaf":18,"position":4,"entry":"…","expired":true}   an event whose body is gone with retention
{"leaf":19,"position":5,"entry":"…"}                  an event outside the time asked for, whose hash the chain needs
{"leaf":20,"entry":"…","record":{…},"salt":"…","head":[position,"chain"],"path":["…"]}
                                                      the log's statement of all chains, and this workspace's head in it
{"certificate":["<DER>",…]}                           of an emitter, its own first, in base64: before what it signed
{"batch":[17,4,2],"emitter":"vault","root":"…","signature":"<DER>","key":"<DER>","roots":["…"]}
                                                      what an emitter signed, before the first event of it: the first leaf,
                                                      the emitter's number of it, how many; the root over all its events;
                                                      the roots of those that are not shown with a record, as in a gap
{"checkpoint":"<note>"}                               the tree as it is here had this root: what differs, differs before
{"end":17}                                            how many leaves were shown
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from authpipe_transparency.chains import Head
from authpipe_transparency.errors import FormatError
from authpipe_transparency.events import EMITTED, Emitted
from authpipe_transparency.merkle import Range

FORMAT = 1
_HASH = rb"[0-9a-f]{64}"
_NUMBER = rb"0|[1-9][0-9]{0,17}"
_LEAF = re.compile(
    rb'\{"leaf":(?P<leaf>' + _NUMBER + rb')(?:,"position":(?P<position>[1-9][0-9]{0,17}))?'
    rb',"entry":"(?P<entry>' + _HASH + rb')"(?:,"record":(?P<record>\{.+\}),"salt":"(?P<salt>' + _HASH + rb')")?'
    rb'(?P<expired>,"expired":true)?'
    rb'(?:,"head":\[(?P<head>' + _NUMBER + rb'),"(?P<chain>' + _HASH + rb')"\],"path":\[(?P<path>[0-9a-f",]*)\])?\}',
    re.ASCII,
)
_SHOWN = re.compile(
    rb'\{"leaf":(' + _NUMBER + rb'),"position":([1-9][0-9]{0,17}),"entry":"(' + _HASH + rb')"'
    rb',"record":(' + EMITTED + rb'),"salt":"(' + _HASH + rb')"\}',
    re.ASCII,
)
_GAP = re.compile(rb'\{"gap":\[(' + _NUMBER + rb"),(" + _NUMBER + rb')\],"roots":\[([0-9a-f",]*)\]\}', re.ASCII)
_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"
_BATCH = re.compile(
    rb'\{"batch":\[(' + _NUMBER + rb"),([1-9][0-9]{0,17}),([1-9][0-9]{0,17})\]"
    rb',"emitter":"([a-z][a-z0-9/-]{0,63})","root":"(' + _HASH + rb')","signature":"(' + _BASE64 + rb')"'
    rb',"key":"(' + _BASE64 + rb')","roots":\[([0-9a-f",]*)\]\}',
    re.ASCII,
)
_CERTIFICATE = re.compile(rb'\{"certificate":\["(' + _BASE64 + rb'(?:","' + _BASE64 + rb')*)"\]\}', re.ASCII)
_END = re.compile(rb'\{"end":(' + _NUMBER + rb")\}", re.ASCII)
_HEADER_MEMBERS = ["export", "origin", "workspace", "since", "until", "key", "checkpoint"]


class Header(NamedTuple):
    """What an export is of.

    Args:
        origin: The trail's.
        workspace: Whose events; empty: those of the installation.
        since: From then on, as it was asked for; empty: from the beginning.
        until: Before then; empty: up to the checkpoint.
        key: The log's verifier key, as the log says it; whoever verifies knows it from elsewhere.
        checkpoint: The signed note.
    """

    origin: str
    workspace: str
    since: str
    until: str
    key: str
    checkpoint: str


class LeafLine(NamedTuple):
    """One leaf.

    Args:
        leaf: Its index.
        position: Its place in the workspace's chain; 0: it is none of it.
        entry: 32 bytes, as it stands in the tree.
        record: What it commits to; empty: the body is not shown.
        salt: 32 bytes, with the record.
        expired: Whether the body is gone with retention.
        head: In a statement of all chains: where this workspace's chain stands.
        path: The siblings in that map, from the root down.
    """

    leaf: int
    position: int
    entry: bytes
    record: bytes = b""
    salt: bytes = b""
    expired: bool = False
    head: Head | None = None
    path: Sequence[bytes] = ()


class Gap(NamedTuple):
    """Leaves that are not shown, and the roots of the full subtrees that they are cut into."""

    part: Range
    roots: Sequence[bytes]


class CheckpointLine(NamedTuple):
    """A signed checkpoint of the tree as it is at this line."""

    note: str


class End(NamedTuple):
    """How many leaves were shown."""

    leaves: int


class CertificateLine(NamedTuple):
    """The certificate chain of an emitter, DER, its own first."""

    chain: Sequence[bytes]


class BatchLine(NamedTuple):
    """A batch as its emitter signed it (`batches`).

    Args:
        leaf: The index of its first leaf.
        sequence: The emitter's number of its first event.
        events: How many.
        emitter: The path of the emitter's SPIFFE id.
        root: Over all its events.
        signature: Of the emitter, DER.
        key: The public key that verifies it: SubjectPublicKeyInfo, DER.
        roots: The full subtrees of those events that are not shown with a record, each stretch cut by `merkle.gap_ranges`.
    """

    leaf: int
    sequence: int
    events: int
    emitter: str
    root: bytes
    signature: bytes
    key: bytes
    roots: Sequence[bytes]


Line = Header | Gap | LeafLine | CheckpointLine | CertificateLine | BatchLine | End


def write_line(line: Line) -> bytes:
    """Writes a line, with its newline."""
    value: dict[str, object]
    match line:
        case LeafLine():
            return _write_leaf(line)
        case Gap():
            return f'{{"gap":[{line.part.start},{line.part.end}],"roots":[{_listed(line.roots)}]}}\n'.encode()
        case BatchLine():
            return (
                f'{{"batch":[{line.leaf},{line.sequence},{line.events}],"emitter":"{line.emitter}","root":"{line.root.hex()}"'
                f',"signature":"{_text(line.signature)}","key":"{_text(line.key)}","roots":[{_listed(line.roots)}]}}\n'
            ).encode()
        case CertificateLine():
            value = {"certificate": [_text(each) for each in line.chain]}
        case Header():
            value = dict(zip(_HEADER_MEMBERS, (FORMAT, *line), strict=True))
        case CheckpointLine():
            value = {"checkpoint": line.note}
        case End():
            value = {"end": line.leaves}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _write_leaf(line: LeafLine) -> bytes:
    parts = [b'{"leaf":%d' % line.leaf]
    if line.position:
        parts.append(b',"position":%d' % line.position)
    parts.append(b',"entry":"%b"' % line.entry.hex().encode())
    if line.record:
        parts.append(b',"record":%b,"salt":"%b"' % (line.record, line.salt.hex().encode()))
    if line.expired:
        parts.append(b',"expired":true')
    if line.head is not None:
        parts.append(f',"head":[{line.head.position},"{line.head.chain.hex()}"],"path":[{_listed(line.path)}]'.encode())
    return b"".join([*parts, b"}\n"])


def _listed(hashes: Sequence[bytes]) -> str:
    return ",".join(f'"{each.hex()}"' for each in hashes)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read_leaf(line: bytes) -> LeafLine | None:
    """Reads a line that is a leaf; none: it is another one."""
    found = _LEAF.fullmatch(line)
    if found is None:
        return None
    leaf, position, entry, record, salt, expired, head, chain, path = found.groups()
    return LeafLine(
        int(leaf),
        int(position or 0),
        bytes.fromhex(entry.decode()),
        record or b"",
        bytes.fromhex(salt.decode()) if salt else b"",
        expired is not None,
        Head(int(head), bytes.fromhex(chain.decode())) if head else None,
        _hashes(path) if path else (),
    )


def read_shown(line: bytes) -> tuple[LeafLine, Emitted] | None:
    """Reads a line that is an event of a chain with its record, as most are: what `read_line` and `emitted` give, at half their cost.

    None: it is another one, or not in its canonical encoding.
    """
    found = _SHOWN.fullmatch(line)
    if found is None:
        return None
    leaf, position, entry, record, emitter, event, time, sequence, salt = found.groups()
    says = Emitted(emitter.decode(), int(sequence), event, time.decode())
    return LeafLine(int(leaf), int(position), bytes.fromhex(entry.decode()), record, bytes.fromhex(salt.decode())), says


def read_line(line: bytes) -> Line:
    """Reads a line, without its newline.

    Raises:
        FormatError: It is none of an export.
    """
    leaf = read_leaf(line)
    if leaf is not None:
        return leaf
    if found := _GAP.fullmatch(line):
        return Gap(Range(int(found[1]), int(found[2])), _hashes(found[3]))
    if found := _END.fullmatch(line):
        return End(int(found[1]))
    if found := _BATCH.fullmatch(line):
        return BatchLine(
            int(found[1]),
            int(found[2]),
            int(found[3]),
            found[4].decode(),
            bytes.fromhex(found[5].decode()),
            _data(found[6]),
            _data(found[7]),
            _hashes(found[8]),
        )
    if found := _CERTIFICATE.fullmatch(line):
        return CertificateLine(tuple(map(_data, found[1].split(b'","'))))
    return _read_other(line)


def _read_other(line: bytes) -> Header | CheckpointLine:
    try:
        value = json.loads(line)
        if list(value) == _HEADER_MEMBERS and value["export"] == FORMAT:
            texts = [value[name] for name in _HEADER_MEMBERS[1:]]
            if all(isinstance(text, str) for text in texts):
                return Header(*texts)
        if list(value) == ["checkpoint"] and isinstance(value["checkpoint"], str):
            return CheckpointLine(value["checkpoint"])
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise FormatError("A line of the export is not written as docs/audit-format.md says.")


def _data(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise FormatError("A line of the export has base64 that is none.") from None


def _hashes(data: bytes) -> tuple[bytes, ...]:
    if not data:
        return ()
    try:
        hashes = tuple(bytes.fromhex(each.removeprefix('"').removesuffix('"')) for each in data.decode().split(","))
    except ValueError:
        raise FormatError("A line of the export has a hash that is none.") from None
    if any(len(each) != 32 for each in hashes):
        raise FormatError("A line of the export has a hash that is not 32 bytes.")
    return hashes
