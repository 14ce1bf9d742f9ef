"""The public Python interface: a published result in memory, and a slide or an array from start to end."""
