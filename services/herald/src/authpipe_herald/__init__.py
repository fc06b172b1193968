"""herald: tells people of incidents, by webhook and e-mail.

It asks audit what each sink has not been told yet, tells it, and says so. It has no database, no key and no credential, and
it is not the worker: whoever takes over the process that talks to Providers cannot silence the alarm about it. A herald
that is taken over can silence alarms and invent some; the incidents stay in the log.
"""
