"""Finished models and the test split become numbers, once."""
