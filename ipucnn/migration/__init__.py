"""The job behind `migrate`: command lines and configurations of other programs, translated."""
