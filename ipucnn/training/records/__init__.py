"""Records: the files and loggers of a running training, and the lock of its folder."""
