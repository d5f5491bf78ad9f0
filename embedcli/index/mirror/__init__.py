"""An index in a vault, worked on in a folder of this machine.

keys.py, pointer.py  which object a file of the index becomes; the object that says what is published
mirror.py  the disk of such a folder: what becomes durable here is stored in the vault first, or with it
refresh.py  the folder brought up to date with the vault; collect.py  objects that nobody needs any more
place.py  where the folder of a vault is
"""
