"""The kit that runs and grades the labs. It needs the standard library and pytest, nothing else."""
