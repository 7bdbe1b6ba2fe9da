"""A .zip as a source; see `archive`. Its members are found by the directory at the end of the file."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from stopgrad.data.archive import BROKEN, SortedArchive, clean_name, first_line, whole
from stopgrad.data.folder import HEAD, IMAGES, Kind
from stopgrad.data.listing import Member, UnreadableError, is_hidden

# zipfile unpacks bzip2 and LZMA whole, however little is asked for, and 4 KB of bzip2 can be gigabytes: refused.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Zip(SortedArchive):
    """Members are found by the directory at the end of the file."""

    kind = "a zip archive"
    file: zipfile.ZipFile | None = None

    def __init__(self, path: Path, stamp: tuple[bytes, ...], wanted: Kind = IMAGES) -> None:
        super().__init__(path, stamp, wanted)
        self.lock = threading.Lock()  # zipfile counts its open members without one

    def scan(self) -> Iterator[tuple[bytes, zipfile.ZipInfo]]:
        self.file = zipfile.ZipFile(self.path)
        seen = set()
        for info in self.file.infolist():
            name = clean_name(_zip_name(info))
            if name.endswith(b"/") or is_hidden(name):
                continue
            if reason := self.sorter.reason(name, self._refused(info)):
                self.sorter.refuse(name, reason)
            elif self.wanted.named(name) or self._begins_like_one(name, info):
                self.sorter.twice += name in seen
                seen.add(name)
                yield name, info
            else:
                self.sorter.refuse(name, "")

    def _refused(self, info: zipfile.ZipInfo) -> str:
        if info.flag_bits & 0x41:
            return "encrypted"
        if info.compress_type not in METHODS:
            method = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))  # type: ignore[attr-defined]
            return f"compressed by {method}, which isn't read; pack it again with deflate"
        if info.create_system == 3 and (info.external_attr >> 28) not in (0, 8):
            return "not a regular file (link or device)"
        return ""

    def _begins_like_one(self, name: bytes, info: zipfile.ZipInfo) -> bool:
        if not self.wanted.may_begin(name):
            return False
        with contextlib.suppress(UnreadableError):
            return self.wanted.sniff(self._read(info, HEAD)) is not None
        return False

    def member(self, name: bytes, where: zipfile.ZipInfo) -> Member:
        return Member(name, where.file_size, lambda limit: self._read(where, limit))

    def _read(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        """At most the declared size is ever decompressed, however much there is."""
        assert self.file is not None
        wanted = info.file_size if limit < 0 else min(limit, info.file_size)
        try:
            with self.lock:
                file = self.file.open(info)
            try:
                data = file.read(wanted)
            finally:
                with self.lock:
                    file.close()
        except (*BROKEN, OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableError(f"damaged in the archive ({first_line(error)})") from error
        return whole(data, wanted)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def _zip_name(info: zipfile.ZipInfo) -> bytes:
    """The name as it was written: UTF-8 where it says so, else bytes of an unknown encoding (cp437 is any byte)."""
    name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    return name.replace(b"\\", b"/") if info.create_system == 0 else name  # some of DOS's make write it so
