"""Rows become logits: a model runner, actors around it, and the leases that hand out shards."""
