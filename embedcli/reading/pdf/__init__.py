"""From a PDF to its text, page by page: pdfium reads, pypdf helps where pdfium cannot.

document.py  the whole file; page.py, text.py, glyphs.py, broken.py, rtl.py  the text of a page
values.py  that of its forms; judge.py  is it text
hints.py, overlay.py, layers.py, names.py, update.py, second.py, xfa.py  what a file holds beside its pages
"""
