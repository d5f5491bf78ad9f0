"""The command line: Typer lives here and nowhere else.

main.py  the program and the exit codes; app.py  the Typer application
ingest.py, search.py, recut.py, status.py, verify.py, upkeep.py, machine.py  the commands
flags.py  flags that several commands take; status_text.py, search_text.py  the text that `status` and `search` print
"""
