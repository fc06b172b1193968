"""edge: the public half of the gateway.

It faces customers and browsers, by REST and gRPC, and opens the one record that is being served. It has no database and
no signing key, and never sees a refresh token or a client secret at rest: an edge that is taken over gets what passes
through it meanwhile.
"""
