"""Documents that are zip archives: what an archive says of itself, and the reader for it.

In: an open file that begins like a zip archive, and its suffix. Out: a Document; UnreadableSource for an archive that
is no document (`archive`), and `unsupported` or `damaged`.
Not here: other kinds of files (reading/kinds.py), how a format is read (the module that each function imports).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.reading.office.package import Package, relation_target
from embedcli.records import Beat, Document

LONGEST_TYPE = 200

ZipReader = Callable[[Package, BinaryIO, Beat], Document]

ZIPPED_SUFFIXES = frozenset(
    {
        *(".docx", ".docm", ".dotx", ".dotm", ".xlsx", ".xlsm", ".xltx", ".xltm", ".xlsb"),
        *(".odt", ".ott", ".odp", ".otp", ".odg", ".ods", ".ots", ".epub"),
        *(".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"),
    }
)
_UNSUPPORTED_ZIPS = frozenset({".pages", ".numbers", ".key", ".vsdx", ".vsdm", ".xps", ".oxps", ".hwpx"})


def read_zipped(file: BinaryIO, suffix: str, beat: Beat) -> Document:
    try:
        package = Package(file, beat=beat)
    except UnreadableSource as error:
        if suffix in ZIPPED_SUFFIXES:
            raise
        raise UnreadableSource("archive", str(error)) from None
    reader = _zip_reader(package)
    if reader is not None:
        return reader(package, file, beat)
    if suffix in ZIPPED_SUFFIXES:
        raise UnreadableSource("damaged", f"no {suffix} inside")
    raise UnreadableSource("unsupported" if suffix in _UNSUPPORTED_ZIPS else "archive")


def _zip_reader(package: Package) -> ZipReader | None:
    """By what the archive says of itself; None for one that is no document."""
    main = relation_target(package, "officeDocument")
    if main is not None:
        return _office_reader(package.content_type(main), main)
    kind = package.read("mimetype")[:LONGEST_TYPE].decode("ascii", "replace") if "mimetype" in package else ""
    if "opendocument.spreadsheet" in kind:
        return _read_sheets
    if "epub" in kind or "META-INF/container.xml" in package:
        return lambda package, _file, beat: _read_epub(package, beat)
    if "opendocument" in kind and "content.xml" in package:
        return lambda package, _file, _beat: _read_odf(package)
    if "opendocument" in kind and kind.endswith("-template"):
        raise UnreadableSource("empty", "a template of nothing but styles")
    return None


def _office_reader(content_type: str, main: str) -> ZipReader:
    if "word" in content_type:
        return lambda package, _file, _beat: _read_docx(package, main)
    if "excel" in content_type or "spreadsheet" in content_type:
        return _read_sheets
    if "powerpoint" in content_type or "presentation" in content_type:
        return lambda package, _file, _beat: _read_slides(package, main)
    raise UnreadableSource("unsupported", content_type)


def _read_docx(package: Package, main: str) -> Document:
    from embedcli.reading.office.docx import read_docx

    return read_docx(package, main)


def _read_slides(package: Package, main: str) -> Document:
    from embedcli.reading.office.slides import read_slides

    return read_slides(package, main)


def _read_epub(package: Package, beat: Beat) -> Document:
    from embedcli.reading.office.epub import read_epub

    return read_epub(package, beat)


def _read_odf(package: Package) -> Document:
    from embedcli.reading.office.odf import read_odf

    return read_odf(package)


def _read_sheets(package: Package, file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.sheets import read_sheets

    return read_sheets(file, beat=beat, package=package)
