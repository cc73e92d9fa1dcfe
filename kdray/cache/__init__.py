"""Logits to Arrow shards and back: what a shard is called, how it is written and read."""
