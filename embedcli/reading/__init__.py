"""From a file to rows that wait for their vectors, in processes of their own.

pool.py, process.py  the reading processes and their limits; rows.py  what one does with one source
formats.py, kinds.py  which reader gets which file; decode.py, declared.py, clean.py  bytes to text
docx.py, slides.py, odf.py, epub.py on package.py and xml_events.py; sheets.py, sparse_sheet.py, tables.py; html.py;
mail.py; message.py on ole.py; rtf.py; structured.py, notebook.py, subtitles.py; pdf.py  a format each
blocks.py, data_runs.py  paragraphs and headings to a document without data; chunker.py  text to chunks
"""
