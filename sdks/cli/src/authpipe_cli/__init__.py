"""authpipe: what customers of an Authpipe do from a terminal. It knows no service's code, only what is public."""
