"""How long a run may take, how long it will take, and how it ends in time.

time_limit.py  the seconds that are left; end_early.py  what is published when they are over
measured.py  what earlier runs took; remaining.py  how much is still to be embedded
"""
