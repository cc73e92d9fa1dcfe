"""Batches of rows and soft targets become a student."""
