"""coordinator: the private half of the broker. It owns connections, flows and leases, and signs grants.

It is no consumer: it never sees a plaintext (not even a code verifier), and it never meets the internet: what it wants of
a Provider it gives to the worker as a job, with grants that are good for that job alone.
"""
