"""A cohort as jobs of a cluster's queue: how many tasks, what each asks for, and the scripts that do it."""
