"""Token shards to batches, in an order that depends on nothing but (configuration, seed, position)."""
