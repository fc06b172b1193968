"""keyservice: keys and no ciphertext.

One process per key domain (user-credentials, client-secrets, audit-log), each with its own HSM token, PIN and database.
It touches the HSM, derives record keys, and releases them under a grant, sealed to the one consumer that the grant names;
in audit-log it signs checkpoints. It never sees a ciphertext and has no route to a store: a keyservice that is taken
over holds keys to nothing it can reach. No audit, no key: a release is durable in the outbox before it is answered.
"""
