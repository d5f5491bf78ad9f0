"""From a file to rows that wait for their vectors, in processes of their own.

pool.py, process.py  the reading processes and their limits; rows.py  what one does with one source
splitter.py  files that hold many documents (containers/), read as streams
formats.py, kinds.py  which reader gets which file: text/, pdf/, office/
chunker.py, together.py  text to chunks
"""
