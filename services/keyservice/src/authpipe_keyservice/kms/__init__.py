"""Customers' own keys, in their KMS: one small interface, an implementation for each kind, its library only where used.

    aws       AWS KMS, by a role with an external id; the context is the encryption context
    google    Google Cloud KMS, by our service account; the context is the additional authenticated data
    azure     Azure Key Vault, RSA-OAEP-256, by our managed identity; the context's digest is inside what is wrapped
    transit   OpenBao's or Vault's Transit, aes256-gcm96; the context is the associated data
    token     a second PKCS#11 token; the context is the AAD

Each blocks, so each key has two threads of its own (pool): one that hangs holds up nobody else.
"""

from authpipe_keyservice.kms.connect import Connector
from authpipe_keyservice.kms.settings import KmsSettings

__all__ = ["Connector", "KmsSettings"]
