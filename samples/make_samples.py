"""The samples that are not typed by hand: four PDFs, each with one difficulty, and a text in GB18030.

In: the texts below. Out: `two-columns.pdf`, `cjk.pdf`, `notes-gb18030.txt`, `unreadable/scan.pdf` and
`unreadable/protected.pdf`, the same bytes on every run of one reportlab, Pillow and pypdf.
Not here: the other samples, which are their own source.

    python samples/make_samples.py [FOLDER]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A5  # type: ignore[import-untyped]
from reportlab.lib.utils import ImageReader, simpleSplit  # type: ignore[import-untyped]
from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]
from reportlab.pdfbase.cidfonts import UnicodeCIDFont, escapePDF  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

PASSWORD = "lumen"
PAPER_TITLE = "Learning the Thermal Inertia of Houses from Fourteen Nights"

PAPER = """\
Abstract. A controller that moves heating into cheap hours must know how fast a house cools. We show that \
fourteen ordinary nights, one room sensor and the outdoor temperature are enough to estimate the time \
constant of a dwelling within twelve per cent. The method needs no test signal, runs in two milliseconds \
on a small processor, and says when it does not know.

1. Introduction
A house is a slow battery. If its rooms may swing by one degree, a typical detached house with floor \
heating stores about nine kilowatt-hours, as much as a module of a home battery that costs several \
thousand euros. The store is free, but it leaks, and its size differs from house to house by a factor of \
six. Building registers tell the year and the floor area. They do not tell that the attic was insulated in \
1998 or that the family likes open windows.
Earlier work heats the house with a random signal for some days and fits a model to the answer. People who \
live in the house notice this at once. We asked what can be learnt from nights on which nothing unusual \
happens.

2. Method
Between one and five in the morning the sun does not shine, nobody cooks, and in most houses the heating \
is held low by the night setting. The room temperature then falls towards the outdoor temperature along an \
exponential. Two unknowns describe it: the time constant, in hours, and a constant gain from sleeping \
people and from standby appliances.
For each night we take the readings of one sensor every five minutes, remove those within thirty minutes \
after a run of the compressor, and keep the night if at least two hours remain. A robust line is fitted to \
the logarithm of the difference between indoors and outdoors. The median over the nights is the estimate; \
the spread between the quartiles is its uncertainty. A window that was left open gives one wrong night, \
which the median ignores.

3. Data
The field test covered 214 houses in Sweden, Germany and Austria from October 2023 to April 2024. In 31 of \
them an independent measurement was available: a blower door test with a survey of the walls, from which \
an engineer had computed the time constant. The houses were built between 1908 and 2021. Sixty-two had \
floor heating, the others radiators.

4. Results
After fourteen nights the median error against the survey was twelve per cent, after thirty nights nine \
per cent. The time constants ranged from 18 hours, a wooden cottage, to 131 hours, a brick house from 1936 \
with new windows. In eleven houses the method refused to answer, because a wood stove was burning during \
most nights. In all eleven the owners confirmed the stove. A wrong answer with high confidence occurred \
once: two flats shared one heating circuit, and the sensor stood in the other flat.
The controller used the estimate to choose how early to heat before an expensive hour. Compared with a \
fixed time constant of fifty hours, the share of heating energy bought in the cheapest third of the hours \
rose from 41 to 58 per cent, and complaints about cold rooms fell by half.

5. Limits
The method learns the house as it is used in winter. In spring the large windows of a modern house let in \
so much sun that the walls are still giving off heat at one in the morning, and the estimate becomes too \
long. We freeze it between April and September. Ventilation systems that change speed at night must be \
reported to the controller, or they look like leaks.

6. Conclusion
Waiting for fourteen nights costs nothing and disturbs nobody. A house that knows its own inertia can be \
heated when electricity is plentiful, and the people in it do not have to know why.
"""

CHINESE = """\
Lumen Hub 电池模块安全须知
一、电池模块必须安装在干燥、通风的房间内,环境温度为零下十度至四十五度。
二、严禁自行打开电池外壳。模块内部电压在断电后仍然存在。
三、电芯温度超过四十八度时,控制器自动切断充放电,并显示故障代码 E-52。
四、发现异味、冒烟或外壳变形时,请立即离开房间并拨打火警电话。
五、废旧磷酸铁锂电池由本公司免费回收,不得混入生活垃圾。
"""

JAPANESE = """\
Lumen Hub 停電時の動作について
停電が発生すると、六十ミリ秒以内に住宅を電力網から切り離します。
蓄電池はバックアップ回路だけに電力を供給します。
残量が二十パーセントになると通知が表示されます。
五パーセントで給電を停止し、翌朝の起動に備えます。
電力網が五分間安定すると、自動的に再接続します。
"""

SCAN = """\
NORRVIK ENERGY          Tarnholm, 14 March 2025

Delivery note 20881

3 x Lumen Cell 9.6 kWh     serial 77120 - 77122
1 x Lumen Hub LH-2         serial 40993
1 x power supply 24 V

Received in good order:   A. Lindqvist
"""

PROTECTED = """\
Installer's settings, confidential
Default installer PIN of the demonstration unit: 0000 0000
Grid code SE-B: over-frequency limit 51.5 Hz, reconnect after 300 s.
Grid code DE-4105: over-frequency limit 51.5 Hz, reconnect after 60 s.
"""

# 㐱 (extension A) and 𠮷 (extension B) take four bytes each: no GBK reader can have them.
NOTES = """\
现场安装记录(内部)

二〇二五年三月九日,用户更换电表后没有数据,故障代码 E-12。检查发现新电表的通信速率为 2400,
校验方式为偶校验。修改设置后,数据恢复正常。

三月十五日,拜访𠮷田先生家。热泵在夜间噪声较大,已将安静时段设为二十二点至次日六点,
压缩机功率限制在百分之四十五以内。

三月二十日,客户㐱女士来电,询问电池为何只能以一千瓦充电。原因是车库温度低于五度。
建议给电池柜加装保温层,不要遮挡散热孔。

四月二日,仓库盘点:电池模块十二台,控制器三十台,电流互感器六十只,备用保险丝 F1 一百只。
"""


class _LegacyCMapFont(UnicodeCIDFont):  # type: ignore[misc]
    """STSong-Light under the CMap GBK-EUC-H, as old Chinese software writes it: not embedded."""

    def __init__(self) -> None:
        super().__init__("STSong-Light")
        self.encodingName = "GBK-EUC-H"
        self.name = self.fontName = "STSong-Light-GBK"

    def formatForPdf(self, text: str) -> str:  # noqa: N802 (reportlab's name)
        return str(escapePDF(text.encode("gbk")))


class _StableWriter(PdfWriter):
    """Keeps the file identifiers of the PDF it was cloned from; pypdf would put random bytes there."""

    def generate_file_identifiers(self) -> None:
        pass


def _canvas(buffer: io.BytesIO, title: str) -> Canvas:
    canvas = Canvas(buffer, pagesize=A5, invariant=1, pageCompression=1)
    canvas.setTitle(title)
    canvas.setAuthor("Norrvik Energy")
    return canvas


def two_columns() -> bytes:
    """A paper whose reading order is down the left column, then down the right one."""
    buffer = io.BytesIO()
    canvas = _canvas(buffer, PAPER_TITLE)
    width, height = A5
    column_width = (width - 90) / 2
    lines = [line for part in PAPER.splitlines() for line in simpleSplit(part, "Times-Roman", 9, column_width) or [""]]
    canvas.setFont("Times-Bold", 13)
    canvas.drawCentredString(width / 2, height - 50, PAPER_TITLE)
    per_column = 43
    for number, start in enumerate(range(0, len(lines), per_column)):
        if number and number % 2 == 0:
            canvas.showPage()
        column = canvas.beginText(36 + (number % 2) * (column_width + 18), height - 80)
        column.setFont("Times-Roman", 9, leading=11.5)
        column.textLines(lines[start : start + per_column])
        canvas.drawText(column)
    canvas.save()
    return buffer.getvalue()


def cjk() -> bytes:
    """Fonts that are not embedded: page 1 Chinese, a legacy CMap; page 2 Japanese, a Unicode CMap."""
    buffer = io.BytesIO()
    canvas = _canvas(buffer, "Lumen Hub: 安全须知")
    for font, text in ((_LegacyCMapFont(), CHINESE), (UnicodeCIDFont("HeiseiMin-W3"), JAPANESE)):
        pdfmetrics.registerFont(font)
        canvas.setFont(font.fontName, 9)
        for row, line in enumerate(text.splitlines()):
            canvas.drawString(30, A5[1] - 60 - 18 * row, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def scan() -> bytes:
    """A page that is one bitmap: a reader that does no OCR finds nothing."""
    bitmap = Image.new("1", (840, 600), 1)
    ImageDraw.Draw(bitmap).multiline_text((50, 60), SCAN, fill=0, font=ImageFont.load_default(28), spacing=14)
    buffer = io.BytesIO()
    canvas = _canvas(buffer, "scan0007")
    canvas.drawImage(ImageReader(bitmap), 0, 200, width=A5[0], height=A5[0] * 600 / 840)
    canvas.save()
    return buffer.getvalue()


def protected() -> bytes:
    """Opens with PASSWORD only. RC4, since pypdf does that without another package."""
    plain, buffer = io.BytesIO(), io.BytesIO()
    canvas = _canvas(plain, "Installer's settings")
    canvas.setFont("Helvetica", 9)
    for row, line in enumerate(PROTECTED.splitlines()):
        canvas.drawString(36, A5[1] - 60 - 16 * row, line)
    canvas.save()
    writer = _StableWriter(clone_from=PdfReader(plain))
    writer.encrypt(PASSWORD, algorithm="RC4-128")
    writer.write(buffer)
    return buffer.getvalue()


def write_all(folder: Path) -> None:
    """Write the five files into `folder`."""
    (folder / "two-columns.pdf").write_bytes(two_columns())
    (folder / "cjk.pdf").write_bytes(cjk())
    (folder / "unreadable").mkdir(exist_ok=True)
    (folder / "unreadable/scan.pdf").write_bytes(scan())
    (folder / "unreadable/protected.pdf").write_bytes(protected())
    (folder / "notes-gb18030.txt").write_bytes(NOTES.encode("gb18030"))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
