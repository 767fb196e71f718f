"""Jobs in, grey levels out, shard by shard."""
