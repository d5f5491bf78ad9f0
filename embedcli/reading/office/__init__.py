"""A reader for each format of office programs, mail and the web.

docx.py, slides.py, odf.py, epub.py on package.py and xml_events.py; sheets.py, sparse_sheet.py, tables.py
html.py; mails/; compound.py on ole.py; rtf.py; structured.py, notebook.py, subtitles.py
"""
