"""Pickles in a model's files: found, also inside archives, and scanned or refused.

picklescan says which names a pickle asks for, and knows names that run code. That list cannot be complete, so
a pickle passes only if every name in it is known to be harmless, by picklescan or by the user, and if it can
be read to its end. What cannot be looked at is refused.
"""

import bz2
import gzip
import io
import lzma
import pickletools
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from genesis_flow.models.policy import SCAN, Policy
from genesis_flow.models.refusal import refused

# What loaders take for a pickle by its name. Those of protocol 2 or later are found by their first byte.
ENDINGS = frozenset({".pkl", ".pickle", ".pck", ".p", ".dill", ".joblib", ".pt", ".pth", ".ckpt", ".bin"})
CODE = frozenset({".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".whl", ".egg", ".jar", ".sh"})
_MAGIC = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_UNPACKED_LIMIT = 1 << 30
_DEPTH = 5
_NPY = b"\x93NUMPY"
# What gzip, bzip2, xz, lzma, zlib and numpy begin with; no pickle does.
_NOT_PICKLES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x78", _NPY)
# Archives that are not opened here; a loader might.
_UNREADABLE = {b"7z\xbc\xaf\x27\x1c": "7z", b"\x04\x22\x4d\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}


class Files:
    """Goes through the files of one model, and through the archives among them."""

    def __init__(self, model: str, policy: Policy) -> None:
        self._model = model
        self._policy = policy

    def check(self, path: Path, name: str, *, is_pickle: bool = False) -> None:
        """Refuse the file for what it is, or for what is in it; what a loader unpickles is a pickle."""
        with path.open("rb") as file:
            self._check(file, name, _DEPTH, is_pickle)

    def _check(self, file: IO[bytes], name: str, depth: int, is_pickle: bool = False) -> None:
        if depth == 0:
            raise self._refusal(name, "holds archives in archives, deeper than is looked into")
        ending = PurePosixPath(name).suffix.lower()
        start = file.read(8)
        file.seek(0)
        if ending in CODE:
            raise self._refusal(name, "is code")
        for magic, kind in _UNREADABLE.items():
            if start.startswith(magic):
                raise self._refusal(name, f"is an archive of {kind}, which is not looked into")
        # One file can be both: a pickle in front of an archive, whose table of contents is at the end.
        is_archive = zipfile.is_zipfile(file)
        file.seek(0)
        expected = is_pickle or ending in ENDINGS
        if start.startswith(_MAGIC) or (expected and not _is_other(file, start, is_archive)):
            self._check_pickle(file, name)
        if is_archive:
            self._check_zip(file, name, depth)
        elif start.startswith(_NPY):
            self._check_array(file, name)
        elif (inner := self._unpacked(file, start, name)) is not None:
            unpacked = PurePosixPath(name).stem if ending in _PACKED else PurePosixPath(name).name
            self._check(inner, f"{name}!{unpacked}", depth - 1, is_pickle)
        elif _is_tar(file):
            self._check_tar(file, name, depth)

    def _check_zip(self, file: IO[bytes], name: str, depth: int) -> None:
        try:
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    self._check_member(name, info.filename, stat.S_ISLNK(info.external_attr >> 16))
                    if not info.is_dir():
                        with archive.open(info) as member:
                            self._check(self._whole(member, name), f"{name}!{info.filename}", depth - 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise self._refusal(name, f"is an archive that cannot be read ({error})") from error

    def _check_tar(self, file: IO[bytes], name: str, depth: int) -> None:
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    self._check_member(name, info.name, not (info.isfile() or info.isdir()))
                    if (member := archive.extractfile(info)) is not None:
                        self._check(self._whole(member, name), f"{name}!{info.name}", depth - 1)
        except (tarfile.TarError, EOFError) as error:
            raise self._refusal(name, f"is an archive that cannot be read ({error})") from error

    def _check_member(self, archive: str, name: str, is_link: bool) -> None:
        if is_link:
            raise self._refusal(archive, f"has the link {name!r} in it")
        if leads_out(name):
            raise self._refusal(
                archive, f"has {name!r} in it, which leads out of the folder it is unpacked to"
            )

    def _check_array(self, file: IO[bytes], name: str) -> None:
        """An array of objects has a pickle behind its header, which names its type."""
        file.seek(0)
        header, end, _ = file.read(1 << 16).partition(b"\n")
        if not end or b"'O'" in header or b"|O" in header:
            raise self._refusal(name, "is an array of Python objects, which are a pickle")

    def _unpacked(self, file: IO[bytes], start: bytes, name: str) -> IO[bytes] | None:
        opened: Any = None
        file.seek(0)
        if start.startswith(b"\x1f\x8b"):
            opened = gzip.GzipFile(fileobj=file)
        elif start.startswith(b"BZh"):
            opened = bz2.BZ2File(file)
        elif start.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            opened = lzma.LZMAFile(file)  # noqa: SIM115 - over a file that the caller closes
        elif start[:1] == b"\x78" and len(start) > 1 and (start[0] * 256 + start[1]) % 31 == 0:
            try:
                return self._whole(_Inflated(file), name)
            except zlib.error:
                return None  # two bytes alone do not make it one
        if opened is None:
            return None
        try:
            return self._whole(opened, name)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise self._refusal(name, f"is compressed, and cannot be read to its end ({error})") from error

    def _whole(self, file: Any, name: str) -> IO[bytes]:
        content = file.read(_UNPACKED_LIMIT + 1)
        if len(content) > _UNPACKED_LIMIT:
            raise self._refusal(name, f"unpacks to more than {_UNPACKED_LIMIT >> 20} MiB")
        return io.BytesIO(content)

    def _check_pickle(self, file: IO[bytes], name: str) -> None:
        if self._policy.pickles != SCAN:
            raise self._refusal(
                name,
                "is a pickle, which can run any code when it is loaded: save the model in a format without "
                "code, or have pickles scanned (GENESIS_FLOW_MODEL_PICKLES=scan)",
            )
        try:
            from picklescan.scanner import SafetyLevel, scan_pickle_bytes
        except ImportError as error:
            raise self._refusal(
                name,
                "is a pickle, and picklescan, which would scan it, is missing: install genesis-flow[models]",
            ) from error
        file.seek(0)
        self._read_to_the_end(file, name)
        file.seek(0)
        result = scan_pickle_bytes(file, name)
        file.seek(0)
        names = {f"{found.module}.{found.name}": found.safety for found in result.globals}
        if bad := sorted(each for each, safety in names.items() if safety is SafetyLevel.Dangerous):
            raise self._refusal(name, f"is a pickle that uses {', '.join(bad)}, which can run code")
        if result.scan_err or result.issues_count:
            raise self._refusal(name, "is a pickle that cannot be scanned")
        known = self._policy.types
        unknown = [each for each, safety in names.items() if safety is not SafetyLevel.Innocuous]
        if unknown := sorted(each for each in unknown if each not in known):
            raise self._refusal(name, f"is a pickle that uses {_untrusted(unknown)}")

    def _read_to_the_end(self, file: IO[bytes], name: str) -> None:
        try:
            while file.read(1):
                file.seek(-1, io.SEEK_CUR)
                for _ in pickletools.genops(file):
                    pass
        except Exception as error:  # genops raises what its readers of arguments do
            raise self._refusal(name, f"cannot be read as a pickle to its end ({error})") from error

    def check_skops(self, path: Path, name: str) -> None:
        """Refuse what skops does not know to be harmless; the list that a model brings counts for nothing."""
        try:
            from skops.io import get_untrusted_types
        except ImportError as error:
            raise self._refusal(name, "is of skops, which is missing: install skops") from error
        try:
            found = get_untrusted_types(file=path)
        except Exception as error:  # of any kind, by what the file holds
            raise self._refusal(name, f"cannot be read by skops ({error})") from error
        if unknown := sorted(set(found) - self._policy.types):
            raise self._refusal(name, f"uses {_untrusted(unknown)}")

    def _refusal(self, name: str, what: str) -> Exception:
        return refused(f"{name!r} of {self._model} {what}.")


class _Inflated:
    """A stream of zlib, as joblib writes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, limit: int) -> bytes:
        self._file.seek(0)
        unpacker = zlib.decompressobj()
        return unpacker.decompress(self._file.read(), limit)


_PACKED = frozenset({".gz", ".bz2", ".xz", ".z", ".lzma"})


def leads_out(name: str) -> bool:
    """Whether a path, as systems of either kind read it, is not below where it starts."""
    return any(
        path.is_absolute() or bool(path.drive) or bool(path.root) or ".." in path.parts
        for path in (PurePosixPath(name), PureWindowsPath(name))
    )


def _untrusted(names: list[str]) -> str:
    listed = ", ".join(names)
    return (
        f"{listed}: nothing says that these are harmless. If you know it, add them to trusted_model_types in "
        "[security] of mlflow.conf, or to GENESIS_FLOW_TRUSTED_MODEL_TYPES"
    )


def _is_other(file: IO[bytes], start: bytes, is_archive: bool) -> bool:
    return is_archive or _is_tar(file) or start.startswith(_NOT_PICKLES)


def _is_tar(file: IO[bytes]) -> bool:
    file.seek(257)
    found = file.read(5) == b"ustar"
    file.seek(0)
    return found
