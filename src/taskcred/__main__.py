"""`python -m taskcred` is the command line."""

from taskcred.cli import main

main()
