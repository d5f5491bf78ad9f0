"""Which files there are.

roots.py  the roots of a run; walk.py  every file below them; filters.py, brackets.py  which of them count
"""
