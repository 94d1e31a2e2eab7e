"""What an artifact repository raises for a transfer that it leaves to the server."""

from mlflow.exceptions import (
    _UnsupportedMultipartDownloadException as UnsupportedMultipartDownloadException,
    _UnsupportedMultipartUploadException as UnsupportedMultipartUploadException,
)

__all__ = [
    "UnsupportedMultipartDownloadException",
    "UnsupportedMultipartUploadException",
]
