"""Office files for tests, part by part: each shows one construct that no Python library writes.

In: the XML inside a body or a slide, and parts beside it. Out: the bytes of the file. Not here: what is read out of it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from embedcli.reading.formats import read
from embedcli.records import Document

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
NAMESPACES = (
    f'xmlns:w="{W}" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def read_bytes(data: bytes, name: str) -> Document:
    """The document in a file of these bytes."""
    return read(io.BytesIO(data), name=name, beat=lambda page: None)


def saved(maker: Any) -> bytes:
    """What a library's document, workbook or presentation saves."""
    stream = io.BytesIO()
    maker.save(stream)
    return stream.getvalue()


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    """An archive of these parts, in their order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def replaced(data: bytes, parts: Mapping[str, str | bytes]) -> bytes:
    """The archive with these parts in place of its own, or beside them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**kept, **parts})


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    """A `.rels` part: id -> (last word of the type, target)."""
    lines = "".join(
        f'<Relationship Id="{key}" Type="{_RELATION}/{kind}" Target="{target}"/>'
        for key, (kind, target) in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{lines}</Relationships>'
    )


def docx(body: str, **parts: str) -> bytes:
    """A Word file with this body; `footnotes="<w:footnote ..."` is the inside of such a part, `header1=` likewise."""
    roots = {"header": "hdr", "footer": "ftr"}
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        f'<Override PartName="/word/document.xml" ContentType="{_WORD}"/></Types>',
        "_rels/.rels": relations({"rId1": ("officeDocument", "word/document.xml")}),
        "word/document.xml": f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>",
    }
    kinds = {name: name.rstrip("0123456789") for name in parts}
    files["word/_rels/document.xml.rels"] = relations({name: (kind, f"{name}.xml") for name, kind in kinds.items()})
    for name, inside in parts.items():
        root = roots.get(kinds[name], kinds[name])
        files[f"word/{name}.xml"] = f"<w:{root} {NAMESPACES}>{inside}</w:{root}>"
    return zipped(files)


def paragraph(*inside: str, properties: str = "") -> str:
    """A `w:p`; a string without markup becomes a run."""
    runs = "".join(part if part.startswith("<") else run(part) for part in inside)
    return f"<w:p>{f'<w:pPr>{properties}</w:pPr>' if properties else ''}{runs}</w:p>"


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


_ODF = "urn:oasis:names:tc:opendocument:xmlns"
ODF_NAMESPACES = " ".join(
    f'xmlns:{name}="{_ODF}:{full}:1.0"'
    for name, full in {
        "office": "office", "text": "text", "table": "table", "style": "style", "draw": "drawing", "fo": "x",
        "presentation": "presentation", "svg": "svg-compatible", "meta": "meta", "manifest": "manifest",
    }.items()
)  # fmt: skip
ODF_NAMESPACES += ' xmlns:dc="http://purl.org/dc/elements/1.1/"'


def odf(body: str, *, kind: str = "text", styles: str = "", **parts: str) -> bytes:
    """An OpenDocument file; `body` is the inside of `office:text` or its like, `meta=` of another part."""
    content = (
        f"<office:document-content {ODF_NAMESPACES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    files = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content}
    if "meta" in parts:
        files["meta.xml"] = f"<office:document-meta {ODF_NAMESPACES}>{parts['meta']}</office:document-meta>"
    if "masters" in parts:
        masters = (
            f"<office:master-styles><style:master-page>{parts['masters']}</style:master-page></office:master-styles>"
        )
        files["styles.xml"] = f"<office:document-styles {ODF_NAMESPACES}>{masters}</office:document-styles>"
    return zipped(files)
