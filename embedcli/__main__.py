"""`python -m embedcli`; the guard is needed: engines spawn processes that import this module."""

from embedcli.cli.main import main

if __name__ == "__main__":
    main()
