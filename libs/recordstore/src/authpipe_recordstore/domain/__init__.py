"""The rules of a store. No grpc, SQL or clock in here: they are handed in."""
