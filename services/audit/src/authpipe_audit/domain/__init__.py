"""The rules of the log. No grpc, SQL or clock in here: they are handed in."""
