"""From a file to rows that wait for their vectors, in processes of their own.

pool.py, process.py  the reading processes and their limits; rows.py  what one does with one source
formats.py  which reader gets which file; pdf.py; decode.py, clean.py  bytes to text; chunker.py  text to chunks
"""
