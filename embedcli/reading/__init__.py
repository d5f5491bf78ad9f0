"""From a file to rows that wait for their vectors, in processes of their own.

pool.py, process.py  the reading processes and their limits; rows.py  what one does with one source
formats.py  which reader gets which file; pdf.py, markdown.py; decode.py, legacy.py  bytes to text
clean.py, terminal.py  text to clean text; chunker.py  text to chunks
"""
