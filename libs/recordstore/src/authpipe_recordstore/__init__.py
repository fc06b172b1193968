"""What vault and clientsecrets share: records by version, compare-and-swap, fences, deletion.

Both keep ciphertext and neither ever has a key: they relay what keyservice sealed to others. They differ in their names,
certificates, databases, key domains and callers, which each of them states itself.
"""

from authpipe_recordstore.config import StoreConfig
from authpipe_recordstore.process import serve_store

__all__ = ["StoreConfig", "serve_store"]
