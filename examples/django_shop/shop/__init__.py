"""A shop on Django whose events go to PostgreSQL."""
