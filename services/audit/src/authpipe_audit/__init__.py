"""audit: appends to and proves the log; its role in the database cannot update or delete.

Three trails, an RFC 6962 Merkle tree each, over salted commitments of events that their emitters have signed. Checkpoints
are signed elsewhere, by keyservice audit-log, which refuses to sign a tree that does not extend what it signed last.
"""
