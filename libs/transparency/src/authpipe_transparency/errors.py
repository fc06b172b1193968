"""What does not verify, and what is not written as its format says."""

from __future__ import annotations


class ProofError(Exception):
    """A proof does not lead to the root it is said to lead to, or has another length than it must have."""


class FormatError(Exception):
    """These bytes are not what their specification allows. The message says of which, and echoes nothing of them."""
