"""worker: the half of the broker that talks to strangers.

It opens the one record that its job names, for the time of the job, and sends it to the hosts that the record is bound
to. It has no database and no signing key: a worker that is taken over holds the jobs it is given, and nothing else.
"""
