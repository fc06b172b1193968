"""The REST door: a module per resource, problem documents, the hosted page; the hot token route beside them."""
