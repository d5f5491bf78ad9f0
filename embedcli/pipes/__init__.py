"""Texts in by a pipe, vectors and rows out by a pipe.

texts.py  lines, NUL-separated texts and JSON lines from stdin or files; prepare.py  what the engine gets for a text
in_order.py  the texts through the engine, in the order given; tables.py  tables of them
output.py  tables of rows as JSON lines, CSV, Arrow, Parquet or .npy
"""
