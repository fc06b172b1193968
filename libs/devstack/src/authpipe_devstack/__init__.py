"""devstack: the whole real system on one machine, from the parts that tests use; nothing in it is a double.

CA and certificates, three PostgreSQL clusters, three SoftHSM tokens, the ten processes, a workspace with an API key, and
a playground Provider to connect to. Everything lives below one folder, `.authpipe/`.
"""
