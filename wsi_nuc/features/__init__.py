"""What can be measured of every nucleus, and of a slide as a whole, from a store and its slide."""
