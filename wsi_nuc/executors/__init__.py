"""Applies a function to tasks and gives back what came of each: in a plain loop, by Dask, or in jobs of Slurm."""
