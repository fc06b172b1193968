"""Detectors: each looks at one event after the other, with what it remembers of one subject, and says when it is alarming.

baselines     access far above what a connection, an API key or a workspace usually has
places        first use from a new address range, or at an unusual hour
enumerating   many connections, or many that are not there, in a short time by one API key
refreshes     a connection that is refreshed again and again; a Provider that refuses many
bounds        releases of keys near the bound at which keyservice refuses
traps         use of what is disconnected, and of decoys
reported      what other processes call an alarm themselves
watching      goes through the log, and carries what they find to the incidents

What a detector remembers is a handful of numbers, bounded, kept beside the log and never in it: it can be forgotten and
learned again. A detector decides by the time in the events, so that it finds the same whenever it looks.
"""
