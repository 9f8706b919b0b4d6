"""Makes the files of this folder: `python tests/legacy/make.py FOLDER`.

The files here were made by commit 432c437 and stay as they are: a later program must read them.
Check out that commit to make them again; OMP_NUM_THREADS=1 gives the same figures.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

HERE = Path(__file__).resolve().parent
PROFILES = HERE / "profiles"
MADE_BY = "432c437"

COMMON = ("--model resnet8-cifar --input-size 16 --backend torch --device cpu "
          "--precision 32.32 --batch-size 8 --iterations 4")
SHAPES, CIFAR = f"{COMMON} --data shapes", f"{COMMON} --data cifar10"

# a training's options, and what its restoring changes
TRAININGS = {
    # stopped after the third of the four host calls of its second epoch
    "sgd_step": (
        f"{SHAPES} --epochs 2 --lr 0.02 --momentum 0.9 --weight-decay 0.02 --lr-schedule step "
        "--lr-epoch-decay 0.5,1.5 --lr-decay 0.3 --warmup-epochs 0.25 --seed 7 "
        "--gradient-accumulation 2 --checkpoint-save-freq 5 --checkpoint-save-steps 3 "
        "--checkpoint-save-minutes 600 --logs-per-epoch 4 --no-validation "
        "--normalization-location host --norm-eps 0.001 --batchnorm-momentum 0.2 "
        "--input-image-padding --dataloader-worker 2 --skip-bad-samples",
        {"epoch": 3}),
    "rmsprop_ema": (
        f"{CIFAR} --epoch 1 --optimizer rmsprop --rmsprop-decay 0.9 --optimizer-eps 0.01 "
        "--momentum 0.5 --lr 0.02 --weight-decay 0.01 --ema-decay 0.8 --lr-schedule exponential "
        "--lr-decay 0.7 --lr-scheduler-freq 2 --warmup-epoch 0.5 --loss-scaling 4 "
        "--initial-loss-scaling 2 --validation-mode during --validation-frequency 1 --keep-best "
        "--keep-last 1 --best-metric loss --early-stopping 5 --full-precision-norm "
        "--first-trainable-layer layer3/0/bn2 --seed 1",
        {"epoch": 2}),
    "adamw_mix": (
        f"{CIFAR} --epoch 1 --optimizer adamw --optimizer-eps 1e-4 --lr 0.002 --weight-decay 0.05 "
        "--lr-schedule polynomial --lr-power 1.5 --mixup-alpha 0.3 --cutmix-lambda-low 0.2 "
        "--cutmix-lambda-high 0.8 --cutmix-disable-prob 0.4 --normlayer group "
        "--groupnorm-group-num 4 --shortcut-type B --rand-augment 2 --rand-augment-magnitude 7 "
        "--recompute-mode manual --recompute-checkpoints layer2/.* --validation-frequency 2 "
        "--first-trainable-layer layer3/0 --seed 2",
        {"epoch": 2, "lr": 0.004}),
    "lamb_factors": (
        f"{CIFAR} --epoch 2 --optimizer lamb --optimizer-eps 0.001 --lr 0.05 --weight-decay 0.1 "
        "--lr-factors 1,0.5,0.25 --lr-epoch-decay 0.5,2 --label-smoothing 0.1 --replicas 2 "
        "--device-iterations 2 --first-trainable-layer fc --skip-non-finite 2 --steps-per-log 1 "
        "--no-eight-bit-io --augmentation none --enable-recompute --checkpoint-save-freq 2 "
        "--log-dir lamb_factors/logs --result lamb_factors/result.json --num-classes 10 --seed 3",
        {"epoch": 3, "batch_size": 4}),
    "half_resolution": (
        f"{CIFAR} --input-size 24 --epoch 2 --lr 0.02 --lr-schedule cosine --shortcut-type C "
        "--half-res-training --fine-tune-epoch 1 --fine-tune-lr 0.03 --fine-tune-batch-size 4 "
        "--fine-tune-gradient-accumulation 2 --fine-tune-first-trainable-layer layer3/0 "
        "--weight-avg-strategy exponential --weight-avg-exp-decay 0.6 --weight-avg-N 2 "
        "--disable-metrics --seed 4",
        {"fine_tune_epoch": 2}),
    "resnet_trainer": (
        "--data-dir data/cifar10 --size 8 --dataset CIFAR-10 --batch-size 10 "
        "--replication-factor 2 --num-ipus 4 --pipeline --recompute "
        "--gradient-accumulation-factor 3 --batches-per-step 1 --base-learning-rate -6 "
        "--learning-rate-schedule 0.5,0.75 --learning-rate-decay 1,0.5,0.25 --norm-type GROUP "
        "--norm-groups 4 --shortcut-type B --precision 32 --valid-per-epoch 0.5 "
        "--log-dir resnet_trainer/logs --log_dir_string first --steps-per-log 1 --epochs 2 "
        "--iterations 4 --num-workers 2 --no-prng --weight-decay 0 --checkpoint-save-freq 2 "
        "--backend torch --device cpu",
        {"epochs": 3}),
}

# what the checkpoints are exported with
EXPORTS = {
    "sgd_step": "--batch-size 10 --normalization-location device",
    "rmsprop_ema": "--batch-size 10 --ema",
    "adamw_mix": "--dynamic-batch --target onnxruntime",
}

RUN = ("--model resnet8-cifar --weights sgd_step/resnet8-cifar_shapes_2.step7.pt "
       "--data shapes --input-size 16 --backend torch --device cpu --precision full "
       "--batch-size 16 --device-iteration 2 --iterations 5 --warmup 1 --norm-eps 0.001 "
       "--input-image-padding --normalization-location host --predictions predictions.csv "
       "--top-k 3 --num-workers 2 --seed 5 --result run.json")
TRAIN = (f"{CIFAR} --epochs 2 --learning-rate 0.02 --momentum 0.8 --norm-type group "
         "--norm-num-groups 8 --micro-batch-size 6 --validation-mode after --log-dir logs "
         "--seed 6 --result train.json")

# options that could not be used together are in several files
EVERY_RUN = {
    "model": "efficientnet-b0", "weights": "some/weights.pt", "weights_partial": True,
    "num_classes": 12, "input_size": 96, "normlayer": "group", "groupnorm_group_num": 8,
    "norm_eps": 1e-4, "batchnorm_momentum": 0.05, "input_image_padding": True,
    "efficientnet_expand_ratio": 4, "efficientnet_group_dim": 16, "shortcut_type": "B",
    "data_dir": "https://host.example/images", "data_cache_dir": "cache",
    "data_cache_size": "1.5G", "skip_bad_samples": True, "normalization_location": "none",
    "eight_bit_io": False, "dataloader_worker": 3, "dataloader_mode": "rebatched",
    "dataloader_rebatch_size": 64, "seed": 11, "backend": "poptorch", "device": "cpu",
    "batch_size": 5, "device_iterations": 7, "replicas": 4, "full_precision_norm": True,
    "pipeline_splits": ["_blocks/3", "_blocks/10"], "compile": True,
    "model_cache_path": "compiled", "compile_only": True, "half_partial": True,
    "available_memory_proportion": [0.1, 0.2, 0.3], "enable_fast_groupnorm": True,
    "num_io_tiles": 64, "prefetch_depth": 5, "connection_type": "ondemand",
    "exchange_memory_target": "balanced", "offline_target_ipu_version": 21, "profile": True,
    "ipu_model": True, "result": "result.json", "data": "coco", "instances": 2,
    "annotations": "instances.json", "precision": "int8", "calibration_samples": 50,
    "calibration_dir": "calibration", "iterations": 20, "warmup": 3, "time_limit": 12.5,
    "report_hw_cycle_count": True, "predictions": "predictions.csv", "top_k": 2,
    "log_path": "logs", "hide_output": False}
EVERY_TRAIN = {
    **{name: value for name, value in EVERY_RUN.items() if name not in (
        "annotations", "calibration_samples", "calibration_dir", "warmup", "time_limit",
        "report_hw_cycle_count", "predictions", "top_k", "log_path", "hide_output", "instances")},
    "weights": "pretrained:imagenet", "data": "webdataset", "precision": "16.32",
    "gradient_accumulation": 32, "epoch": 17, "optimizer": "rmsprop_tf", "lr": 0.125,
    "momentum": 0.85, "weight_decay": 5e-5, "optimizer_eps": 0.001, "rmsprop_decay": 0.953125,
    "label_smoothing": 0.1, "loss_scaling": 128.0, "initial_loss_scaling": 8.0,
    "ema_decay": 0.97, "skip_non_finite": 4, "early_stopping": 6, "lr_schedule": "exponential",
    "lr_decay": 0.97, "lr_epoch_decay": [3, 7.5], "lr_power": 2.0, "lr_scheduler_freq": 0.424,
    "warmup_epoch": 5.0, "augmentation": "none", "use_bbox_info": True, "rand_augment": 2,
    "rand_augment_magnitude": 15, "mixup_alpha": 0.2, "cutmix_lambda_low": 0.65,
    "cutmix_lambda_high": 0.9, "cutmix_disable_prob": 0.35, "recompute_mode": "manual",
    "recompute_checkpoints": ["_blocks/1", "_blocks/.*/_bn1"], "enable_recompute": True,
    "offload_optimizer": True, "enable_optimizer_rts": True, "enable_stochastic_rounding": True,
    "enable_fp_exceptions": True, "disable_stable_batchnorm": True, "auto_loss_scaling": True,
    "loss_velocity_scaling_ratio": 2.0, "syncless_collectives": "auto",
    "max_bytes_per_tile": 1000, "validation_mode": "during", "validation_frequency": 3,
    "validation_data_dir": "validation", "best_metric": "top5", "checkpoint_path": "checkpoints",
    "checkpoint_save_freq": 2, "checkpoint_save_steps": 50, "checkpoint_save_minutes": 7.5,
    "keep_last": 3, "keep_best": True, "weight_avg_strategy": "exponential",
    "weight_avg_exp_decay": 0.95, "weight_avg_n": 5, "half_res_training": True,
    "fine_tune_epoch": 2, "fine_tune_lr": 0.2, "fine_tune_batch_size": 3,
    "fine_tune_gradient_accumulation": 5, "fine_tune_first_trainable_layer": "_blocks/12",
    "first_trainable_layer": "_blocks/1", "logs_per_epoch": 20, "disable_metrics": True,
    "log_dir": "logs"}
OPTIONS = {
    "run": ("run", EVERY_RUN),
    "run_onnx": ("run", {
        "onnx": "models", "model": "resnet50", "data": "generated", "backend": "onnxruntime",
        "batch_size": 4, "precision": "full", "iterations": 9, "available_memory_proportion": 0.4}),
    "run_synthetic": ("run", {
        "model": "resnet50", "random_weights": True, "synthetic": True, "precision": "half",
        "normalization_location": "ipu", "eight_bit_io": True}),
    "train": ("train", EVERY_TRAIN),
    "train_factors": ("train", {
        "model": "resnet50", "data": "imagenet", "data_dir": "imagenet", "precision": "half",
        "lr_factors": [1, 0.1, 0.01], "lr_epoch_decay": [10.5, 20], "no_validation": True,
        "steps_per_log": 10, "recompute_mode": "auto", "shortcut_type": "C"}),
    "export": ("export", {
        "model": "efficientnet-b0", "weights": "some/weights.pt", "weights_partial": True,
        "num_classes": 12, "input_size": 96, "normlayer": "group", "groupnorm_group_num": 8,
        "norm_eps": 1e-4, "batchnorm_momentum": 0.05, "input_image_padding": True,
        "efficientnet_expand_ratio": 4, "efficientnet_group_dim": 16, "shortcut_type": "B",
        "seed": 3, "target": "onnxruntime", "batch_size": 6, "opset": 11, "precision": "half",
        "normalization_location": "device", "model_path": "exported"}),
    "export_checkpoint": ("export", {
        "checkpoint_path": "checkpoints", "ema": True, "dynamic_batch": True,
        "output": "network.onnx"}),
    "validate": ("validate", {
        "checkpoint_path": "rmsprop_ema", "ema": True, "data": "cifar10",
        "data_dir": "data/cifar10", "dataloader_worker": 2, "skip_bad_samples": True,
        "backend": "torch", "device": "cpu", "batch_size": 16, "device_iterations": 2,
        "replicas": 2, "precision": "full", "per_class": True,
        "confusion_matrix": "matrix.csv", "result": "validated.json"}),
    "average": ("average", {
        "checkpoint_path": "half_resolution", "checkpoint_output_path": "again.pt",
        "weight_avg_strategy": "exponential", "weight_avg_exp_decay": 0.6, "weight_avg_n": 2}),
    "average_anew": ("average", {
        "checkpoint_path": "half_resolution", "checkpoint_output_path": "anew.pt",
        "reestimate_batch_norm": 64}),
}


def ipucnn(arguments: str) -> str:
    """Run today's program and return what it prints."""
    return subprocess.run([sys.executable, "-m", "ipucnn", *shlex.split(arguments)], check=True,
                          stdout=subprocess.PIPE).stdout.decode()


def write_cifar10() -> None:
    """Write CIFAR-10's binary form, with 250 images to train on and 50 to validate."""
    folder = Path("data", "cifar10", "cifar-10-batches-bin")
    folder.mkdir(parents=True)
    chance = random.Random(0)
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([i % 10]) + chance.getrandbits(8 * 3072).to_bytes(3072, "big")
            for i in range(50)))


def train_until_stopped(options: str) -> None:
    """Train, and be stopped as by SIGTERM after the third host call of the second epoch."""
    from ipucnn.command import parsed
    from ipucnn.core.profiles import resolve
    from ipucnn.core.training.phases import train_all
    from ipucnn.core.training.results import Listener

    from ipucnn.core.options import TrainOptions

    class Stopping(Listener):
        reached = ""

        def status(self, status: Any) -> None:
            if (status.phase, status.epoch, status.done) == ("training", 2, 3):
                self.reached = "SIGTERM"

        def stop(self) -> str:
            return self.reached

    train_all(resolve(TrainOptions, parsed(TrainOptions, shlex.split(options)), "train"),
              listener=Stopping())


def rows_in(folder: str) -> List[Dict[str, Any]]:
    """Return the rows of a training's metrics, without those that tell times."""
    return [{name: value for name, value in json.loads(line).items()
             if name not in ("images_per_second", "data_wait_share", "checkpoint")}
            for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def without_machine(result: Dict[str, Any]) -> Dict[str, Any]:
    """Return a result that does not tell on which machine it was made."""
    log_dir = result.get("log_dir")
    return {**result, "device": "CPU", "session": {**result["session"], "threads": 1},
            "environment": {**result["environment"], "processor": "a processor", "cores": 1,
                            "command": ["ipucnn", *result["environment"]["command"][1:]]},
            **({"log_dir": os.path.relpath(log_dir)} if log_dir else {})}


def exported(name: str) -> Dict[str, Any]:
    """Export a checkpoint, and return what the file's network makes of the first images."""
    data = "shapes" if name == "sgd_step" else "cifar10"
    result = json.loads(ipucnn(f"export --checkpoint-path {name} {EXPORTS[name]} --json "
                               f"--output {name}.onnx"))
    ipucnn(f"run --onnx {name}.onnx --backend onnxruntime --precision full --batch-size 10 "
           f"--data {data} --iterations 1 --predictions {name}-rows.json --top-k 8 "
           "--progress off")
    rows = json.loads(Path(f"{name}-rows.json").read_text())[:4]
    return {"options": EXPORTS[name], "data": data, "model": result["model"],
            "input": result["input"],
            "predictions": [{row[f"name_{k}"]: row[f"probability_{k}"] for k in range(1, 9)}
                            for row in rows]}


def make_training(name: str, options: str, changes: Dict[str, Any], target: Path) -> None:
    """Train; then record what restoring and validating give."""
    options += f" --checkpoint-path {name}"
    if name == "sgd_step":
        train_until_stopped(options)
    else:
        ipucnn(f"train {options} --progress off")
    result = Path(name, "result.json")
    if result.exists():
        write_json(result, without_machine(json.loads(result.read_text())))
    shutil.copytree(name, str(target / "trainings" / name))
    validated = json.loads(ipucnn(f"validate --checkpoint-path {name} --json --progress off"))
    export = {"exported": exported(name)} if name in EXPORTS else {}
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in changes.items())
    # the fine-tuning is within the folder of the training before it
    restored = json.loads(ipucnn(f"restore --checkpoint-path {name} {flags} --json --progress off"))
    write_json(target / "trainings" / f"{name}.json", {
        "made_by": MADE_BY, "command": f"ipucnn train {options}", "restore": changes,
        "validated": validated["validations"],
        "restored": {**{key: restored[key] for key in (
            "model", "dataset", "epochs", "updates", "loss", "accuracy", "options")},
            "rows": rows_in(restored["log_dir"])},
        **export})


def make_average(name: str, values: Dict[str, Any], target: Path) -> None:
    """Average as the options say; then record what the average scores."""
    shutil.rmtree("half_resolution")
    shutil.copytree(str(target / "trainings" / "half_resolution"), "half_resolution")
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in values.items())
    ipucnn(f"average {flags}")
    validated = json.loads(ipucnn(f"validate --checkpoint-path {values['checkpoint_output_path']} "
                                  "--json --progress off"))
    write_json(target / "results" / f"{name}.json", validated)


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    work = target / "work"
    work.mkdir(parents=True)
    os.chdir(str(work))
    write_cifar10()
    for name, (options, changes) in TRAININGS.items():
        make_training(name, options, changes, target)
    shutil.rmtree("sgd_step")
    shutil.copytree(str(target / "trainings" / "sgd_step"), "sgd_step")
    ipucnn(f"run {RUN} --progress off")
    ipucnn(f"train {TRAIN} --progress off")
    for name in ("run", "train"):
        write_json(target / "results" / f"{name}.json",
                   without_machine(json.loads(Path(f"{name}.json").read_text())))

    from ipucnn.core.declaration import as_dict, build

    from ipucnn.core.options import COMMANDS

    for name, (command, values) in OPTIONS.items():
        saved = as_dict(build(COMMANDS[command], values))
        write_json(target / "options" / command / f"{name}.json", saved)
        if command == "average":
            make_average(name, values, target)
    for profile in sorted(PROFILES.glob("*/*.yaml")):
        shown = ipucnn(f"config show {profile} --command {profile.parent.name} --json")
        write_json(target / "profiles" / profile.parent.name / f"{profile.stem}.json",
                   json.loads(shown))
    os.chdir(str(target))
    shutil.rmtree(str(work))


if __name__ == "__main__":
    main()
