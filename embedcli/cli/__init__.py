"""The command line: Typer lives here and nowhere else.

main.py  the program and the exit codes; app.py  the application
ingest.py, upkeep.py, machine.py  the commands; flags.py  flags that several take; status_text.py  `status` in words
"""
