"""The winner becomes an HTTP endpoint."""
