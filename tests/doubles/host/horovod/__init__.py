"""A stand-in for Horovod, with what the contract file lists."""
