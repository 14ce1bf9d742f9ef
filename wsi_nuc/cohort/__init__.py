"""Many slides as one piece of work: a plan, shards that run it in any order, and tables over all of it."""
