"""What the figures of the paper show: each is a function of ensembles or rows that returns a matplotlib Figure."""
