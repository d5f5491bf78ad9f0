"""The command line: Typer lives here and nowhere else.

main.py  the program and the exit codes; app.py  the Typer application
commands.py  the list of commands, each loaded when it is called; group.py, settings_file.py  values of flags
ingest.py, search.py, recut.py, status.py, verify.py, upkeep.py, doctor.py, machine.py, config.py, pipes.py,
sync.py, serve.py  the commands
nightly.py, metrics.py  what `ingest` offers for cron: time limits, priority, log file, figures
flags.py  flags that several commands take
status_text.py, verify_text.py, search_text.py  the text that `status`, `verify` and `search` print
"""
