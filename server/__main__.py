"""`python -m server` is `scoregate`."""

from server.cli import main

if __name__ == "__main__":
    main()
