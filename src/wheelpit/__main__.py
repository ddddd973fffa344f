"""`python -m wheelpit`: the same as the `wheelpit` command."""

from wheelpit.cli.main import main

if __name__ == "__main__":
    main()
