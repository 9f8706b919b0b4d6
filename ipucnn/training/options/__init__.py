"""The options of `train`, `restore`, `validate` and `average`.

`train_options` composes those of a training from its parts: `training_parts`, `written_parts`
and `fine_tuning`.
"""
