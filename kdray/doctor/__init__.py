"""What a machine and a cluster are becomes what is wrong with them, and what to do."""
