"""Tables of documents, and arrays, that are too large for memory.

spilled.py  a table in a mapped file; contiguous.py  its columns, each in one piece
walk_order.py  sorted tables side by side, merged, a window at a time
gathered.py  an array that comes in parts; merged_keys.py  sorted arrays, merged, a range at a time
mapped.py  files without names, and their pages
"""
