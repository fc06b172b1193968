"""authpipe-witness: cosigns checkpoints of transparency logs (C2SP tlog-witness), and carries them between log and witnesses.

Run one, and no log can show you another past than it shows everybody else whom your witness serves. It knows no service's
code, only what is public.
"""
