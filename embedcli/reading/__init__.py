"""From a file to rows that wait for their vectors, in processes of their own.

pool.py, process.py  the reading processes and their limits; rows.py  what one does with one source
formats.py, kinds.py  which reader gets which file: text/, pdf/, office/
chunker.py, together.py  text to chunks
"""
