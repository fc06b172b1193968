"""authpipe-admin: the commands of the people who run an installation.

It holds no key and no credential, and reads no database: it calls the services with the operator's own certificate, and
each act is in the audit log under that operator's name. What takes two people takes two certificates.
"""
