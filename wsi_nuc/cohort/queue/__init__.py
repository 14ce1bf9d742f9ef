"""A cohort as jobs in a cluster's queue: the number of tasks, what each asks for, and the scripts."""
