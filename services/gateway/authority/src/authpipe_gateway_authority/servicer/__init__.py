"""Door in: authority's rpcs; a file for each kind."""

from authpipe_gateway_authority.servicer.authority import AuthorityServicer
from authpipe_gateway_authority.servicer.members import MembersServicer, SignInServicer

__all__ = ["AuthorityServicer", "MembersServicer", "SignInServicer"]
