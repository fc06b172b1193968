"""Real parts for tests and devstack: a CA, PostgreSQL clusters, SoftHSM tokens, ports. No production code imports this."""
