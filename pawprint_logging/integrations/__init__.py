"""Integrations with frameworks; each module needs the framework that it is named after, and imports no other."""
