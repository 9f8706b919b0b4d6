"""Training: the job, what it is made of, and what it leaves behind."""
