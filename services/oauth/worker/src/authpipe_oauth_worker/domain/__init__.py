"""The rules of the worker. No grpc, HTTP or clock in here: they are handed in."""
