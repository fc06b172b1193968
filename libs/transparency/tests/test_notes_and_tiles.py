"""Notes, checkpoints, cosignatures, tiles and chains against the examples of their specifications."""

from __future__ import annotations

import base64

import pytest
from authpipe_transparency import (
    ENTRIES,
    LOG_KEY,
    WITNESS_KEY,
    Checkpoint,
    FormatError,
    Head,
    Leaf,
    Note,
    NoteError,
    ProofError,
    SignatureLine,
    Tile,
    VerifierKey,
    bundle,
    chain_next,
    chain_start,
    cosign,
    map_key,
    map_path,
    map_root,
    open_checkpoint,
    parse_tile,
    unbundle,
    verify_in_map,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

# The example of C2SP tlog-checkpoint and tlog-cosignature.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""
# A verifier key that Go's sumdb/note package publishes in its documentation.
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

LOG, WITNESS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
LOG_VKEY = VerifierKey("example.com/log", LOG_KEY, LOG.public_key().public_bytes_raw())
WITNESS_VKEY = VerifierKey("witness.example/w1", WITNESS_KEY, WITNESS.public_key().public_bytes_raw())
CHECKPOINT = Checkpoint("example.com/log", 3, bytes(range(32)))


def signed(checkpoint: Checkpoint = CHECKPOINT, key: VerifierKey = LOG_VKEY) -> Note:
    """Gives a checkpoint signed by the log."""
    line = SignatureLine(key.name, key.key_id, LOG.sign(checkpoint.text.encode()))
    return Note(checkpoint.text, (line,))


def test_the_example_of_the_specification_is_read_and_written_back() -> None:
    note = Note.parse(EXAMPLE)
    assert str(note) == EXAMPLE
    assert Checkpoint.parse(note.text).size == 20852163
    assert note.signatures[1].name == "witness.example.com/w1"


def test_a_published_verifier_key_has_the_key_id_that_is_computed_of_it() -> None:
    assert str(VerifierKey.parse(SUMDB)) == SUMDB
    with pytest.raises(FormatError):
        VerifierKey.parse(SUMDB.replace("033de0ae", "033de0af"))


@pytest.mark.promise("P31")
def test_a_checkpoint_is_its_logs_only_unchanged_and_says_which_witness_cosigned() -> None:
    note = signed()
    line = cosign(WITNESS_VKEY, note.text, 1_679_315_147, WITNESS.sign)
    cosigned = str(Note(note.text, (*note.signatures, line)))
    assert open_checkpoint(cosigned, LOG_VKEY, [WITNESS_VKEY]) == (CHECKPOINT, {"witness.example/w1"})
    # A signature by an unknown key is ignored, one of a known key that is wrong is not.
    assert open_checkpoint(cosigned, LOG_VKEY) == (CHECKPOINT, set())
    moved = SignatureLine(line.name, line.key_id, bytes(8) + line.signature[8:])
    for bad in (
        str(Note(note.text.replace("\n3\n", "\n4\n"), note.signatures)),
        str(Note(note.text, (line,))),
        str(Note(note.text, (*note.signatures, moved))),
        str(signed(Checkpoint("example.com/another", 3, bytes(32)))),
    ):
        with pytest.raises(NoteError):
            open_checkpoint(bad, LOG_VKEY, [WITNESS_VKEY])


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ("20852163", "020852163"),
        ("20852163", "-1"),
        ("\nCsUY", "\n\nCsUY"),
        ("q2I=\n\n", "q2I=\nextension\n\n"),
        ("CsUYapGG", "CsUY"),
        ("q2I=", "q2J="),
        ("example.com/behind-the-sofa\n20", "\t\n20"),
        ("— witness", "- witness"),
        ("fZ+qnA==\n", "fZ+qnA=="),
    ],
)
def test_a_note_that_is_not_written_as_specified_is_refused(found: str, put: str) -> None:
    assert found in EXAMPLE
    with pytest.raises(FormatError):
        Checkpoint.parse(Note.parse(EXAMPLE.replace(found, put, 1)).text)


@given(level=st.integers(-1, 63), index=st.integers(0, 10**12), width=st.integers(1, 256))
def test_a_tiles_path_is_read_as_it_was_written(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_tile(tile.path) == tile


def test_the_paths_of_the_specification() -> None:
    assert Tile(0, 1234067, 256).path == "0/x001/x234/067"
    assert Tile(ENTRIES, 0, 17).path == "entries/000.p/17"
    # A tree of 70,000: 273 full tiles and one of 112; one full tile of level 1 and one of 17; one of level 2, of one hash.
    for tile in (Tile(0, 272, 256), Tile(0, 273, 112), Tile(1, 0, 256), Tile(1, 1, 17), Tile(2, 0, 1)):
        assert tile.is_in(70_000)
    for tile in (Tile(0, 273, 113), Tile(1, 1, 18), Tile(2, 0, 2), Tile(3, 0, 1)):
        assert not tile.is_in(70_000)


@pytest.mark.parametrize(
    "path",
    ["", "0", "0/1", "00/001", "64/000", "0/x000/001", "0/001.p/0", "0/001.p/256", "0/001.p/01", "0/../001", "x/001"],
)
def test_another_spelling_of_a_tile_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        parse_tile(path)


@given(entries=st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_is_read_as_it_was_written_and_not_when_it_is_cut(entries: list[bytes]) -> None:
    data = bundle(entries)
    assert unbundle(data) == entries
    if entries:
        with pytest.raises(FormatError):
            unbundle(data[:-1] if entries[-1] else data + b"\x00")


@pytest.mark.promise("P31")
@given(workspaces=st.sets(st.integers(0, 500), min_size=1, max_size=40), other=st.integers(501, 600))
def test_the_map_gives_each_workspace_one_head_and_no_other(workspaces: set[int], other: int) -> None:
    leaves = sorted(Leaf(map_key(f"ws_{each}"), Head(each, map_key(f"chain {each}"))) for each in workspaces)
    root = map_root(leaves)
    for leaf in leaves:
        path = map_path(leaves, leaf.key)
        verify_in_map(root, leaf.key, leaf.head, path)
        for key, head, siblings in (
            (leaf.key, Head(leaf.head.position + 1, leaf.head.chain), path),
            (leaf.key, Head(leaf.head.position, bytes(32)), path),
            (map_key(f"ws_{other}"), leaf.head, path),
            (leaf.key, leaf.head, [*path, bytes(32)]),
        ):
            with pytest.raises(ProofError):
                verify_in_map(root, key, head, siblings)


def test_a_chain_binds_workspace_trail_order_and_number() -> None:
    one = chain_next(chain_next(chain_start("log/a", "ws_1"), bytes(32)), b"\x01" * 32)
    assert one != chain_next(chain_next(chain_start("log/a", "ws_1"), b"\x01" * 32), bytes(32))
    assert chain_start("log/a", "ws_1") != chain_start("log/b", "ws_1") != chain_start("log/a", "ws_2")


def test_base64_that_has_two_spellings_has_one_here() -> None:
    text = base64.b64encode(bytes(32)).decode()
    with pytest.raises(FormatError):
        Checkpoint.parse(f"example.com/log\n1\n{text[:-2]}B=\n")
