"""The jobs, values and exceptions of `test_effects`."""

from __future__ import annotations

SMALL = {"model": "small", "backend": "recording", "batch_size": 2}
TRAINING = {**SMALL, "data": "image_folder", "data_dir": "PHOTOS", "epoch": 3,
            "logger": ("files", "recorder")}
BASES = {
    "train": TRAINING,
    "restore": {"checkpoint_path": "TRAINED", "checkpoint_output_dir": "further"},
    "run": {**SMALL, "data": "image_folder", "data_dir": "PHOTOS", "weights": "random"},
    "validate": {"checkpoint_path": "TRAINED"},
    "average": {"checkpoint_path": "TRAINED", "checkpoint_output_path": "average.pt"},
    "export": {"model": "small", "weights": "random"},
    "plan": {**SMALL, "data": "imagenet", "replicas": 4, "backend": "poptorch"},
    "data convert": {"source": "PHOTOS", "target": "shards", "data": "image_folder"},
    "data bench": {"data": "image_folder", "data_dir": "PHOTOS", "batch_size": 2,
                   "iterations": 1, "input_size": 32},
    "bench": {"model": ("resnet8-cifar",), "batch_size": (1,), "rounds": 1, "backend": ("torch",)},
}
"""A job of each command. Words in capitals stand for files, see `test_effects.places`."""

VALUES = {
    "model": "resnet8-cifar", "data": "imagenet", "data_dir": "OTHER", "source": "OTHER",
    "validation_data_dir": "OTHER/validation", "backend": "torch", "config": "PROFILE",
    "num_classes": 5, "input_size": 24, "eight_bit_io": False, "normalization_location": "host",
    "pipeline_splits": ("1",), "first_trainable_layer": "1", "initial_loss_scaling": 0.5,
    "early_stopping": 1, "checkpoint_save_minutes": 1e-6, "weights": "WEIGHTS", "weight_avg_n": 1,
    "class_weights": (1.0, 2.0, 3.0), "labels": "LABELS", "shortcut_type": "C",
    "groupnorm_group_num": 16, "rand_augment": 2, "augmentation": "none", "dataset": "IMAGENET",
    "size": "18", "num_ipus": 1, "logger": ("recorder",), "output": "net.onnx",
    "launch": "pod16", "target": "onnxruntime", "opset": 15, "replicas": 2, "hosts": ("a",),
    "num_hosts": 2, "instances": 2, "instances_per_host": 2, "predictions": "p.csv",
    "lr_epoch_decay": (1.0,), "checkpoint_path": "OTHERS", "to": "cifar10",
    "learning_rate_schedule": (0.5,), "base_learning_rate": -3.0, "replication_factor": 2,
    "loss": "focal", "sampler": "balanced", "train_preprocess_steps": ("Resize(16)",),
    "validation_preprocess_steps": ("Resize(16)",), "confusion_matrix": "m.csv",
    "splits": ("train",), "epoch": 2, "lr": 0.5, "recompute_mode": "auto", "norm_eps": 0.5,
    "batch_size": 3, "samples": 5, "efficientnet_group_dim": 8, "cutmix_lambda_high": 0.5,
    "validation_frequency": 2, "precision": "16.16", "loss_scaling": 128.0,
    "bytes_per_shard": 20_000, "samples_per_shard": 2, "weight_avg_strategy": "exponential",
    "compute_batch_size": 2, "ipus": 2, "lr_factors": (0.5, 0.1), "gradient_accumulation": 2,
    "num_io_tiles": 64, "offline_target_ipu_version": 21, "validation_split": 0.3,
    ("export", "normalization_location"): "device", ("data bench", "iterations"): 2,
    ("data convert", "target"): "elsewhere", ("plan", "backend"): "popart",
    ("bench", "model"): ("resnet14-cifar",), ("bench", "backend"): ("onnxruntime",),
    ("bench", "batch_size"): (2,), ("bench", "precision"): ("16.16",),
    ("bench", "against"): ("torchvision",), ("bench", "data"): "generated",
    ("plan", "data"): "shapes", ("validate", "data"): "real",
    ("validate", "match_classes"): "position",
}
"""Values that suit the jobs, where `other_value` does not, by option or command and option."""

_GENERATED = {"data": "generated", "data_dir": None, "iterations": 1}
_SAVED = {"checkpoint_path": "saved"}
CONTEXT = {
    # a folder that the user does not name keeps only the best checkpoint and the last one
    ("train", "checkpoint_save_freq"): _SAVED, ("train", "keep_last"): _SAVED,
    ("train", "keep_best"): {**_SAVED, "checkpoint_save_freq": 2, "epoch": 2},
    # an older spelling, and the plan, need as many steps as there are stages
    ("train", "pipeline_splits"): {"gradient_accumulation": 3},
    ("plan", "pipeline_splits"): {"gradient_accumulation": 3},
    ("run", "pipeline_splits"): {"device_iterations": 2},
    ("restore", "pipeline_splits"): {"gradient_accumulation": 3},
    ("train", "cutmix_lambda_high"): {"batch_size": 4},
    ("plan", "cutmix_lambda_high"): {"batch_size": 4},
    ("restore", "cutmix_lambda_high"): {"batch_size": 4},
    ("train", "match_classes"): {"validation_data_dir": "RENAMED/validation"},
    ("validate", "match_classes"): {"validation_data_dir": "RENAMED/validation"},
    ("restore", "weight_avg_strategy"): {"epoch": 4}, ("plan", "num_hosts"): {"poprun": None},
    ("data bench", "skip_bad_samples"): {"data_dir": "DAMAGED"},
    ("train", "num_classes"): _GENERATED, ("run", "num_classes"): _GENERATED,
    ("train", "validation_split"): {"data_dir": "FLAT"},
    ("restore", "add_classes"): {"data_dir": "GROWN", "epoch": 4},
    ("run", "random_weights"): {"weights": None},  # refused without: it has no published ones
    ("run", "match_classes"): {"data_dir": "RENAMED", "weights": "WEIGHTS"},
    ("run", "skip_bad_samples"): {"data_dir": "DAMAGED"},
    ("data convert", "skip_bad_samples"): {"source": "DAMAGED", "image_quality": 90},
    ("data convert", "check"): {"source": "DAMAGED"},
    ("run", "warmup"): {"batch_size": 1},
    ("plan", "use_bbox_info"): {},
    ("data bench", "seed"): {"samples": 5},
    ("bench", "samples"): {"data_dir": "PHOTOS"},
    # each of these brings the defaults of the old trainer, so that one more has to be there
    **{("train", name): {"num_ipus": 1} for name in (
        "size", "base_learning_rate", "learning_rate_schedule", "valid_per_epoch",
        "log_dir_string", "dataset", "ckpt")},
    ("train", "replication_factor"): {"valid_per_epoch": 1.0},
}
"""Further options that a job needs, or (None) that it must not have, to show an effect."""

_CLI, _PROCESS = "commands/test_cli.py", "test_process.py"
_REPORTS, _RUNS = "commands/test_report_cli.py", "runs/test_runs.py"
ELSEWHERE = {
    ("*", "json"): _CLI + "::test_old_spellings_and_new_ones_mean_the_same",
    ("*", "progress"): "terminal/test_progress.py::",
    ("*", "result"): _CLI + "::test_a_run_on_labelled_files_reports_and_predicts",
    ("run", "report"): _REPORTS + "::test_a_run_and_a_validation_write_theirs",
    ("validate", "report"): _REPORTS + "::test_a_run_and_a_validation_write_theirs",
    ("train", "no_report"): _REPORTS + "::test_no_report_is_written_where_none_is_wanted",
    ("restore", "no_report"): _REPORTS + "::test_no_report_is_written_where_none_is_wanted",
    ("train", "resume"): _RUNS + "::test_resume_auto_continues_the_newest_or_begins",
    ("train", "dashboard"): _RUNS + "::test_the_dashboard_of_a_training_prints_its_lines_"
                                    "afterwards",
    ("run", "time_limit"): _CLI + "::test_every_example_of_the_old_readme_runs",
    ("run", "onnx"): "commands/test_export_cli.py::test_a_file_predicts_what_the_model_does",
    ("run", "instances"): "commands/test_bulk.py::",
    ("validate", "per_class"): "commands/test_training_cli.py::"
                               "test_validate_reports_classes_and_writes_the_matrix",
    ("train", "wandb"): "training/test_resnet_trainer_options.py::"
                        "test_spellings_of_the_last_release",
    ("train", "pipeline"): "training/test_resnet_trainer_options.py::test_what_they_stand_for",
    ("plan", "ipus"): "commands/test_plan.py::"
                       "test_what_cannot_be_trained_is_one_line_a_hint_and_exit_2",
    ("data convert", "workers"): "plugins/datasets/test_webdataset_writer.py::"
                                 "test_the_number_of_workers_changes_no_byte",
    ("data convert", "check"): "plugins/datasets/test_webdataset_writer.py::",
    ("data convert", "data"): "plugins/datasets/test_webdataset_writer.py::",
}
"""Options that act where no such job reaches: on the command's output, in other processes, on time.
The file below `tests`, and the test, of their effect; the file names the option."""
