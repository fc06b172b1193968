"""The rules of authority. No grpc, SQL or clock in here: they are handed in."""
