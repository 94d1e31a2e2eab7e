"""Signed URLs, with which clients of an MLflow server that proxies artifacts reach the blobs directly."""

from __future__ import annotations

import base64
import posixpath
from abc import abstractmethod
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlflow.entities.multipart_upload import (
    CreateMultipartUploadResponse,
    MultipartUploadCredential,
    MultipartUploadPart,
)
from mlflow.entities.presigned_download import PresignedDownloadUrlResponse
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, MultipartUploadMixin

from genesis_flow.compat.artifacts import (
    UnsupportedMultipartDownloadException,
    UnsupportedMultipartUploadException,
)
from genesis_flow.core.errors import invalid

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

    from genesis_flow.artifacts.azure_account import Account

UPLOAD_HOURS = 1
# Clocks differ: a signature that begins now is not yet valid for a service that is behind.
_CLOCK_MARGIN = timedelta(minutes=5)


class PresignedUrls(MultipartUploadMixin, MultipartDownloadMixin):
    """MLflow's hooks for multipart transfers, by SAS tokens for one blob."""

    timeout: int

    @property
    @abstractmethod
    def account(self) -> Account: ...

    @property
    @abstractmethod
    def container(self) -> ContainerClient: ...

    @abstractmethod
    def blob_name(self, path: str | None) -> str: ...

    @abstractmethod
    def errors(self, action: str, path: str | None) -> AbstractContextManager[None]: ...

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        """One URL for each part; they expire after an hour."""
        path = _destination(local_file, artifact_path)
        name = self.blob_name(path)
        with self.errors("sign an upload of", path):
            blob = self.container.get_blob_client(name)
            token = self._signed(blob, timedelta(hours=UPLOAD_HOURS), write=True)
        return CreateMultipartUploadResponse(
            upload_id=None,
            credentials=[
                MultipartUploadCredential(
                    url=f"{blob.url}?comp=block&blockid={_encoded_block(number)}&{token}",
                    part_number=number,
                    headers={},
                )
                for number in range(1, num_parts + 1)
            ],
        )

    def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str | None,
        parts: list[MultipartUploadPart],
        artifact_path: str | None = None,
    ) -> None:
        """Make the blob out of its parts."""
        from azure.storage.blob import BlobBlock

        path = _destination(local_file, artifact_path)
        numbers = sorted(part.part_number for part in parts)
        if numbers != list(range(1, len(numbers) + 1)):
            raise invalid(
                f"The upload of {path} is not complete: its parts are not numbered 1, 2, 3 and so on."
            )
        with self.errors("upload", path):
            self.container.get_blob_client(self.blob_name(path)).commit_block_list(
                [BlobBlock(block_id=_block(number)) for number in numbers], timeout=self.timeout
            )

    def abort_multipart_upload(
        self, local_file: str, upload_id: str | None, artifact_path: str | None = None
    ) -> None:
        """Nothing to do: the service drops blocks that were not committed after a week."""

    def get_download_presigned_url(
        self, artifact_path: str, expiration: int = 300
    ) -> PresignedDownloadUrlResponse:
        """A URL from which anyone can read the blob for ``expiration`` seconds."""
        name = self.blob_name(artifact_path)
        with self.errors("sign a download of", artifact_path):
            blob = self.container.get_blob_client(name)
            size = blob.get_blob_properties(timeout=self.timeout).size
            token = self._signed(blob, timedelta(seconds=expiration), write=False)
        return PresignedDownloadUrlResponse(url=f"{blob.url}?{token}", headers={}, file_size=size)

    def _signed(self, blob: BlobClient, lifetime: timedelta, *, write: bool) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        begin = datetime.now(UTC) - _CLOCK_MARGIN
        end = datetime.now(UTC) + lifetime
        key = getattr(self.container.credential, "account_key", None)
        delegation = None
        if key is None:
            if not hasattr(self.container.credential, "get_token"):
                # A SAS cannot sign another. MLflow then sends the file through the server.
                raise (
                    UnsupportedMultipartUploadException()
                    if write
                    else UnsupportedMultipartDownloadException()
                )
            delegation = self.account.service().get_user_delegation_key(begin, end, timeout=self.timeout)
        name = quote(posixpath.basename(blob.blob_name), safe="")
        token: str = generate_blob_sas(
            account_name=str(blob.account_name),
            container_name=blob.container_name,
            blob_name=blob.blob_name,
            account_key=key,
            user_delegation_key=delegation,
            permission=BlobSasPermissions(read=not write, create=write, write=write),
            start=begin,
            expiry=end,
            # A browser saves the file and does not run what is in it.
            content_disposition=None if write else f"attachment; filename*=UTF-8''{name}",
        )
        return token


def _destination(local_file: str, artifact_path: str | None) -> str:
    return posixpath.join(artifact_path or "", posixpath.basename(local_file))


def _block(number: int) -> str:
    """All of one length, as the service wants it."""
    return f"mlflow-{number:05d}"


def _encoded_block(number: int) -> str:
    return quote(base64.b64encode(_block(number).encode()).decode(), safe="")
