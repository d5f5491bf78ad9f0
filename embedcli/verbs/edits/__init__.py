"""The commands that change an index without reading sources, a file each; change.py is what they have in common.

moved.py, forget.py, rollback.py, unlock.py  the commands; new_place.py  where a moved root or folder goes
"""
