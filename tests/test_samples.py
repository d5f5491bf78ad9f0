"""The samples are what they claim to be, and the script beside them makes those that are made."""

from __future__ import annotations

import csv
import importlib.util
import types
from pathlib import Path
from typing import Any

import pypdf
import pypdfium2
import pytest

SAMPLES = Path(__file__).parent.parent / "samples"


def load_script() -> types.ModuleType:
    pytest.importorskip("reportlab")
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    load_script().write_all(folder)
    return folder


def pypdf_pages(path: Path, password: str | None = None) -> list[str]:
    return [page.extract_text() for page in pypdf.PdfReader(path, password=password).pages]


def pdfium_pages(path: Path) -> list[str]:
    with pypdfium2.PdfDocument(path) as document:
        return [document[i].get_textpage().get_text_bounded() for i in range(len(document))]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def joined(text: str) -> str:
    return " ".join(text.split())


def test_script_writes_the_committed_gb18030_file_byte_for_byte(made: Path) -> None:
    assert (made / "notes-gb18030.txt").read_bytes() == (SAMPLES / "notes-gb18030.txt").read_bytes()


# Bytes may differ between versions of reportlab or Pillow; what is read out of them may not.
@pytest.mark.parametrize("name", ["two-columns.pdf", "cjk.pdf", "unreadable/scan.pdf"])
def test_script_writes_pdfs_that_read_like_the_committed_ones(made: Path, name: str) -> None:
    assert pypdf_pages(made / name) == pypdf_pages(SAMPLES / name)


def test_script_writes_the_same_bytes_twice(made: Path, tmp_path: Path) -> None:
    load_script().write_all(tmp_path)
    assert contents(tmp_path) == contents(made)


def test_two_columns_read_down_the_left_and_then_the_right() -> None:
    pages = pdfium_pages(SAMPLES / "two-columns.pdf")
    text = joined("\n".join(pages))
    headings = [
        "Abstract.",
        "1. Introduction",
        "2. Method",
        "3. Data",
        "4. Results",
        "5. Limits",
        "6. Conclusion",
    ]
    places = [text.index(heading) for heading in headings]
    assert len(pages) in (2, 3)
    assert places == sorted(places)
    # A sentence across the column break of page 1 would be torn by a reader that goes line by line.
    for paragraph in load_script().PAPER.split("\n"):
        assert joined(paragraph) in text


def test_two_columns_carries_its_title() -> None:
    metadata = pypdf.PdfReader(SAMPLES / "two-columns.pdf").metadata
    assert metadata is not None
    assert metadata.title == "Learning the Thermal Inertia of Houses from Fourteen Nights"


def test_cjk_page_1_is_a_font_that_is_not_embedded_under_a_legacy_cmap() -> None:
    page: Any = pypdf.PdfReader(SAMPLES / "cjk.pdf").pages[0]  # pypdf types no entry of a dictionary
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    legacy = [font for font in fonts if font.get("/Encoding") == "/GBK-EUC-H"]
    assert len(legacy) == 1
    descriptor = legacy[0]["/DescendantFonts"][0].get_object()["/FontDescriptor"]
    assert not {"/FontFile", "/FontFile2", "/FontFile3"} & descriptor.keys()
    assert "废旧磷酸铁锂电池由本公司免费回收" in page.extract_text()


def test_cjk_page_2_reads_without_any_font() -> None:
    assert "蓄電池はバックアップ回路だけに電力を供給します" in pdfium_pages(SAMPLES / "cjk.pdf")[1]


def test_scan_has_an_image_and_no_text() -> None:
    assert [page.strip() for page in pdfium_pages(SAMPLES / "unreadable/scan.pdf")] == [""]
    assert len(pypdf.PdfReader(SAMPLES / "unreadable/scan.pdf").pages[0].images) == 1


def test_protected_opens_with_its_password_only() -> None:
    with pytest.raises(pypdfium2.PdfiumError, match="password"):
        pypdfium2.PdfDocument(SAMPLES / "unreadable/protected.pdf")
    with pypdfium2.PdfDocument(SAMPLES / "unreadable/protected.pdf", password="lumen") as document:
        assert "Grid code SE-B" in document[0].get_textpage().get_text_bounded()


def test_notes_are_gb18030_and_nothing_smaller() -> None:
    data = (SAMPLES / "notes-gb18030.txt").read_bytes()
    assert data.decode("gb18030").startswith("现场安装记录")
    for smaller in ("utf-8", "gbk", "gb2312"):
        with pytest.raises(UnicodeDecodeError):
            data.decode(smaller)


def test_every_other_text_is_utf8_and_ends_with_one_newline() -> None:
    texts = [p for p in SAMPLES.iterdir() if p.suffix in {".md", ".txt", ".rst", ".csv"} and "gb18030" not in p.name]
    assert len(texts) >= 8
    for path in texts:
        text = path.read_bytes().decode("utf-8")
        assert text.endswith("\n") and not text.endswith("\n\n"), path.name


def test_every_ticket_has_all_columns() -> None:
    with (SAMPLES / "tickets.csv").open(encoding="utf-8", newline="") as file:
        widths = {len(row) for row in csv.reader(file, delimiter=";")}
    assert widths == {8}


def test_samples_stay_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.iterdir() if path.is_file()) < 400_000
