"""Numbers become a table and a page."""
