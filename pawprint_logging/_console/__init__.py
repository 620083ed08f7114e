"""The command line, built on click and rich (extra ``[cli]``). Only `cli.main` imports it."""
