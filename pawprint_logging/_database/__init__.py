"""Everything that speaks to PostgreSQL; the only package that imports psycopg2."""
