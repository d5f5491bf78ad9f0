"""Where the values of flags come from.

group.py  the command line, the environment, a file; settings_file.py  that file; workers.py  the form of `--workers`
"""
