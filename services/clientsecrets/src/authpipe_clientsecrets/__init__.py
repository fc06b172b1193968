"""clientsecrets: client-secret records, ciphertext and no key.

It keeps what consumers sealed, by version, and relays what keyservice (client-secrets) sealed to them. It never has a key or a
plaintext: whoever takes over this process, its certificate and its database opens nothing.
"""
