"""What there is to do: what the index knows is compared with what its sources hold now. Nothing is read or written.

survey.py  the stage: look at both, say what was found; compare.py  the plan of all roots, join.py  of one of them
again.py  which known sources are read again; missing.py, gone.py  what became of those that were not found
elsewhere.py  sources that the plan takes in although no walk of this run came to them
"""
