"""The wire side of the worker: protobuf to jobs and back."""

from authpipe_oauth_worker.servicer.worker import WorkerServicer

__all__ = ["WorkerServicer"]
