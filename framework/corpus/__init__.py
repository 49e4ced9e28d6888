"""Raw files to text shards, a tokenizer and token shards. `pipeline.prepare` is the way in."""
