"""The rules of the broker. No grpc, SQL or clock in here: they are handed in."""
