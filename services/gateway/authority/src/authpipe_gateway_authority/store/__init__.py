"""Door: authority's tables."""

from authpipe_gateway_authority.store.api_keys import Store
from authpipe_gateway_authority.store.members import MemberStore

__all__ = ["MemberStore", "Store"]
