"""audit: appends to and proves the log; its role in the database cannot update or delete.

One RFC 6962 Merkle tree over salted commitments of events, from the first event on. Checkpoints are signed elsewhere, by
keyservice audit-log, which refuses to sign a fork.
"""
