"""The start of the program, also of `python -m embedcli`; the guard is needed: engines spawn processes that import this
module.

In: argv. Out: the exit code of the process. Not here: the commands (cli/main.py).
"""

import signal


def start() -> None:
    """Run the program. Ctrl-C while its modules are still being loaded ends it without a traceback."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a script
    if is_heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from embedcli.cli.main import main

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


if __name__ == "__main__":
    start()
