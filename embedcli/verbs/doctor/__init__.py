"""`embedcli doctor`: what a run needs from this machine, each check a line.

machine.py  all checks, of the card, the programs and the model; filesystem.py  those of the index
start_engine.py  the engine is started; check.py  the record that every check gives
"""
