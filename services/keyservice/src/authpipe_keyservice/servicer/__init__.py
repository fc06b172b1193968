"""The wire side of keyservice: protobuf to rules and back, a module for each service of the protos."""

from authpipe_keyservice.servicer.administration import KeyAdministrator
from authpipe_keyservice.servicer.checkpoints import CheckpointSigner
from authpipe_keyservice.servicer.releases import KeyServicer

__all__ = ["CheckpointSigner", "KeyAdministrator", "KeyServicer"]
