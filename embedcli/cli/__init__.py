"""The command line: Typer lives here and nowhere else.

main.py  the program and the exit codes; app.py  the Typer application
commands.py  the list of commands, each loaded when it is called; flags.py  flags that several commands take
ingest.py, search.py, recut.py, status.py, verify.py, upkeep.py, doctor.py, machine.py, config.py, pipes.py,
sync.py, serve.py  the commands
nightly.py  what `ingest` offers for cron: time limits, priority, log file
values/  where the values of flags come from
texts/  what `status`, `verify` and `search` print, and the file of figures for Prometheus
"""
