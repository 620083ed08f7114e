"""The table itself: names, columns, DDL, ledger, rights."""
