"""Studies: a grid of runs, what each of them scored, and a page that shows mean and interval over seeds."""
