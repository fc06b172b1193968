"""authority: the private half of the gateway. It checks API keys and signs grants.

It is never a consumer: no key is ever sealed to it, so whoever takes it over reads no credential. It has no public port.
Every row that gives access carries a MAC over all its fields with a key that is not in the database, so that a superuser
who inserts, re-activates or widens one gives nobody anything.
"""
