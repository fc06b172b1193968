"""The rules of keyservice. No grpc, SQL, device or clock in here: they are handed in."""
