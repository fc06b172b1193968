"""The rules of edge. No grpc, HTTP or clock in here: they are handed in."""
