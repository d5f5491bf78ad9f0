"""Tables of documents that are too large for memory.

spilled.py  a table in a mapped file; walk_order.py  sorted tables side by side, merged, a window at a time
"""
