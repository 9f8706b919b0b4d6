"""Training: the job behind `train`, `restore`, `validate` and `average`.

It trains through a backend's session, validates, and writes checkpoints and logs.
Import `training.phases`, `training.restore`, `training.validate`, `training.options.train_options`.
The subpackages import each other in one direction only: `records` → `setup` → `checkpoints` →
`metrics` → `options`.
"""
