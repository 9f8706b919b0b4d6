"""Command lines of other programs: every line of the READMEs, every option of the tables."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from ipucnn import create_model
from ipucnn.__main__ import invoke
from ipucnn.core.errors import UsageError
from ipucnn.core.options.profiles import resolve
from ipucnn.inference.options import RunOptions
from ipucnn.migration.acceptance import refusal
from ipucnn.migration.job import migrate
from ipucnn.migration.module_names import kept_here, module_here
from ipucnn.migration.old_arguments import Arguments, parse
from ipucnn.migration.scripts import FAMILIES, FLAG, MANY, declaration, scripts
from ipucnn.migration.translation import translate

ROOT = Path(__file__).resolve().parents[2]
LISTED = (ROOT / "docs" / "migrating.md").read_text().partition("## Line by line")[2]

ERAS = {
    "run_benchmark.py":
        "batch-size micro-batch-size model data pipeline-splits replicas device-iteration "
        "device-iterations precision iterations half-partial normlayer norm-type "
        "groupnorm-group-num norm-num-groups available-memory-proportion config norm-eps "
        "batchnorm-momentum full-precision-norm enable-fast-groupnorm "
        "normalization-location eight-bit-io "
        "dataloader-worker dataloader-rebatch-size profile model-cache-path "
        "efficientnet-expand-ratio efficientnet-group-dim random-weights input-image-padding "
        "num-io-tiles exchange-memory-target compile-only offline-target-ipu-version",
    "train.py":
        "batch-size model data precision imagenet-data-path gradient-accumulation lr epoch "
        "no-validation validation-mode disable-metrics enable-pipeline-recompute enable-recompute "
        "recompute-mode recompute-checkpoints lr-schedule lr-decay lr-epoch-decay warmup-epoch "
        "lr-scheduler-freq checkpoint-path checkpoint-input-dir checkpoint-output-dir optimizer "
        "momentum loss-scaling initial-loss-scaling loss-velocity-scaling-ratio "
        "enable-stochastic-rounding weight-decay optimizer-eps rmsprop-decay label-smoothing "
        "reduction seed logs-per-epoch validation-frequency wandb wandb-weight-histogram "
        "offload-optimizer enable-optimizer-rts disable-stable-batchnorm enable-fp-exceptions "
        "use-bbox-info webdataset-percentage-to-use webdataset-memory-cache-ratio "
        "weight-avg-strategy weight-avg-exp-decay weight-avg-N auto-loss-scaling mixup-alpha "
        "cutmix-lambda-low cutmix-lambda-high cutmix-disable-prob checkpoint-save-freq "
        "half-res-training fine-tune-epoch fine-tune-lr fine-tune-micro-batch-size "
        "fine-tune-gradient-accumulation fine-tune-first-trainable-layer config compile-only",
    "restore.py": "checkpoint-path checkpoint-input-path",
    "validate.py": "checkpoint-path checkpoint-input-path",
    "weight_avg.py": "checkpoint-path checkpoint-input-path checkpoint-output-path "
                     "weight-avg-strategy weight-avg-exp-decay weight-avg-N",
    "get_model.py": "batch-size micro-batch-size model-name model-path log-path url "
                    "pretrained-model-path",
    "partition_dataset.py": "data-dir partitions output verbose",
    "resnext_inference_launch.py":
        "batch_size batches_per_step device_iterations data_dir iterations model_name num_ipus "
        "num_workers synthetic nosynthetic profile noprofile report_hw_cycle_count model_path "
        "log_path hide_output nohide_output",
    "resnext101.py": "data_sub_dir micro_batch_size replication_factor samples_per_device "
                     "half_partials nohalf_partials batch_size",
    "resnet_main.py":
        "dataset data-dir num-workers batch-size size norm-type norm-groups shortcut-type "
        "precision prng no-prng fp-exceptions half-partials base-learning-rate learning-rate-decay "
        "learning-rate-schedule epochs no-validation valid-per-epoch steps-per-log weight-decay "
        "num-ipus replication-factor recompute pipeline batches-per-step simulation "
        "gradient-accumulation-factor log-dir log_dir_string get-reports ckpt "
        "syncless-collectives max-bytes-per-tile",
    "create_webdataset.py": "source target shuffle seed samples-per-shard format "
                            "train-preprocess-steps validation-preprocess-steps image-quality",
    "validate_dataset.py": "imagenet-data-path",
    "host_benchmark.py":
        "batch-size data imagenet-data-path disable-async-loading normalization-location "
        "dataloader-worker eight-bit-io dataloader-rebatch-size iterations"}
"""The options of Graphcore's scripts in any release."""


def readme_lines():
    """Yield the command lines of the five READMEs, as `docs/migrating.md` lists them."""
    for row in re.findall(r"^\| `(.+?)` \| (.+?) \|", LISTED, re.MULTILINE):
        line, here = row
        if not line.startswith("-") and line != "logs/":
            yield pytest.param(line, here.strip("`"), id=line[:60])


@pytest.mark.parametrize(("line", "here"), list(readme_lines()))
def test_every_line_of_the_readmes(line, here):
    (made,) = migrate(line)
    assert made.problems == ()
    if here.startswith("ipucnn "):
        wanted = re.sub(r" -+help$", " --help-all", here)
        assert words_of(made.command) == words_of(wanted), here
    else:
        assert made.command or made.notes, line


def words_of(command):
    """Return the words of a command line with canonical flags, in any order of options."""
    command = command.replace("=", " ")
    name = command.split()[1]
    canonical = [declaration(name, word).flag if word.startswith("--") and declaration(name, word)
                 else word for word in command.split()]
    return sorted(canonical)


@pytest.mark.parametrize("script", ERAS)
def test_every_option_of_every_era_is_in_the_table(script):
    for option in ERAS[script].split():
        argument = parse(scripts("graphcore")[script], [f"--{option}", "1"]).given[0]
        assert argument.option is not None, option


SAMPLE = {
    "model": "resnet50", "model-name": "resnet50", "model_name": "resnext101_32x4d",
    "opt": "adamw", "optimizer": "sgd", "data": "synthetic", "dataset": "CIFAR-10",
    "sched": "cosine", "lr-scheduler": "steplr", "norm-type": "group", "normlayer": "group",
    "precision": "full", "size": "50", "shortcut-type": "A", "lr-schedule": "step",
    "recompute-mode": "auto", "validation-mode": "during", "weight-avg-strategy": "mean",
    "normalization-location": "host", "exchange-memory-target": "memory", "reduction": "sum",
    "syncless-collectives": "auto", "config": "resnet50", "aa": "rand-m9-n2",
    "auto-augment": "ra", "eval-metric": "loss", "weights": "IMAGENET1K_V2",
    "pipeline-splits": "layer2", "input-size": "3 224 224", "format": "img",
    "loss": "cross-entropy", "train-preprocess-steps": "Resize(256)",
    "validation-preprocess-steps": "CenterCrop(224)", "opt-betas": "0.9 0.99",
    "cutmix-minmax": "0.2 0.8", "scale": "0.2 1.0", "num-io-tiles": "32",
    "decay-milestones": "30 60", "model-dtype": "float16", "mode": "eval", "iterations": "3",
    "num-classes": "10", "device": "cpu", "split": "validation", "train-split": "train",
    "val-split": "val", "offline-target-ipu-version": "2", "crop-pct": "0.9",
    "recompute-checkpoints": "layer1", "first-trainable-layer": "fc", "wandb-project": "mine",
    "fine-tune-first-trainable-layer": "fc", "output": "out", "experiment": "first",
    "resume": "x.pth", "initial-checkpoint": "x.pth", "pretrained-path": "x.pth",
    "checkpoint": "x.pth", "ckpt": "a/b.onnx", "learning-rate-decay": "1,0.1,0.01",
    "learning-rate-schedule": "0.5,0.75", "base-learning-rate": "-6", "data_dir": "images",
    "log-dir": "logs", "source": "a", "target": "b", "groupnorm-group-num": "32",
    "available-memory-proportion": "0.3", "cutmix-lambda-high": "0.5", "img-size": "64",
    "train-crop-size": "64"}
"""A value of an option that takes no number."""

TOGETHER = {
    "weight-avg-strategy": "--checkpoint-path c", "log_path": "--num_ipus 2",
    "use-ema": "--checkpoint x.pth", "dataloader-rebatch-size": "--disable-async-loading",
    "checkpoint-input-dir": "--checkpoint-path 1", "learning-rate-schedule": "--epochs 8",
    "lr-epoch-decay": "--lr-schedule step", "lr-decay": "--lr-schedule step",
    "groupnorm-group-num": "--normlayer group", "norm-num-groups": "--norm-type group",
    "norm-groups": "--norm-type GROUP", "rmsprop-decay": "--optimizer rmsprop",
    "optimizer-eps": "--optimizer adam", "opt-eps": "--opt adamw", "opt-betas": "--opt adamw",
    "cutmix-lambda-low": "--cutmix-lambda-high 1", "offline-target-ipu-version": "--compile-only",
    "num-ipus": "--replication-factor 1",
    "efficientnet-expand-ratio": "--model efficientnet-b0 --random-weights",
    "efficientnet-group-dim": "--model efficientnet-b0 --random-weights",
    "recompute-checkpoints": "--recompute-mode manual",
    "half-res-training": "--fine-tune-epoch 1 --fine-tune-first-trainable-layer fc "
    "--weight-avg-strategy mean --checkpoint-path c",
    "wandb-weight-histogram": "--wandb", "wandb-project": "--log-wandb",
    "webdataset-memory-cache-ratio": "--data webdataset --imagenet-data-path x",
    "initial-loss-scaling": "--loss-scaling 4",
    "loss-velocity-scaling-ratio": "--optimizer sgd_combined",
    "checkpoint-save-freq": "--checkpoint-path c", "pipeline": "--num-ipus 1",
    "mixup-alpha": "--batch-size 4", "cutmix-lambda-high": "--batch-size 4",
    "cutmix-disable-prob": "--cutmix-lambda-high 0.5 --batch-size 4"}
"""Other options that an option needs."""


def every_option():
    for family in FAMILIES:
        for script in scripts(family).values():
            for option in script.options.values():
                yield pytest.param(script, option, id=f"{family}/{script.name} {option.name}")


@pytest.mark.parametrize(("script", "option"), list(every_option()))
def test_every_option_is_translated_or_dropped_with_a_reason(script, option):
    words = [] if option.takes == FLAG else SAMPLE.get(option.name, "1").split()
    further = TOGETHER.get(option.name, "").split()
    if script.command == "data convert":
        further += ["--source", "a", "--target", "b"]
    if option.name == "pipeline-splits":
        further += ["--device-iterations" if script.command == "run" else
                    "--gradient-accumulation", "3"]
    arguments = parse(script, [option.spellings[0], *words, *further])
    draft = translate(script, arguments)
    rows = [row for row in draft.rows if option.spellings[0] in row.given]
    assert rows, option
    assert all(row.becomes or row.why for row in rows), rows
    if not draft.problems and script.command:
        assert refusal(draft.command, draft.words()) == "", draft.words()


def test_a_translation_that_names_an_option_names_one_that_exists():
    for family in FAMILIES:
        for script in scripts(family).values():
            for option in script.options.values():
                if option.to and not option.rule and script.command in (
                        "run", "train", "export", "average"):
                    assert declaration(script.command, option.to), (script.name, option.name)


@pytest.mark.parametrize(("line", "command"), [
    ("python train.py /data --model resnet50.a1_in1k -b 64 --amp",
     "ipucnn train --config timm-train-py --data-dir /data --model resnet50 --batch-size 64 "
     "--precision 16.32 --lr 0.025"),
    ("./distributed_train.sh 4 /data --lr 0.4 --sched step --decay-epochs 30 --epochs 90",
     "ipucnn train --config timm-train-py --launcher torchrun --nproc 4 --data-dir /data --lr 0.4 "
     "--epoch 90 --lr-schedule step --lr-decay 0.1 --lr-epoch-decay 30 60"),
    ("torchrun --nproc_per_node=8 train.py --data-path /i --model mobilenet_v2 --epochs 300 "
     "--lr 0.045 --wd 0.00004 --lr-step-size 1 --lr-gamma 0.98",
     "ipucnn train --launcher torchrun --nproc 8 --config torchvision-train-py --data-dir /i "
     "--model mobilenet --epoch 300 --lr 0.045 --weight-decay 0.00004 "
     "--lr-schedule exponential --lr-decay 0.98 --lr-scheduler-freq 1"),
    ("python references/classification/train.py --model resnet18 "
     "--weights ResNet18_Weights.IMAGENET1K_V1 --test-only --data-path /i -j 3",
     "ipucnn run --model resnet18 --weights pretrained:v1 --data-dir /i --dataloader-worker 3 "
     "--data image_folder"),
    ("torchrun --nproc_per_node=2 references/classification/train.py --model resnet18 --test-only "
     "--opt rmsprop --label-smoothing 0.1 --train-crop-size 176 --val-crop-size 208",
     "ipucnn run --launcher torchrun --nproc 2 --model resnet18 --input-size 208"),
    ("python validate.py /data --model resnet50 --checkpoint best.pth --use-ema -b 7",
     "ipucnn run --data-dir /data --model resnet50 --weights best.pth --ema --batch-size 7 "
     "--data image_folder"),
    ("python validate.py --data-dir /data --dataset wds/imagenet --model resnet50 --pretrained",
     "ipucnn run --data-dir /data --data webdataset --model resnet50 --weights pretrained"),
    ("python3 train.py --model resnet18 --checkpoint-path ''",
     "ipucnn train --config train-py --model resnet18 --no-checkpoints"),
    ("python3 train.py --model resnet18 --checkpoint-output-dir=",
     "ipucnn train --config train-py --model resnet18 --no-checkpoints"),
    ("python3 train.py --model resnet18 --checkpoint-path out",
     "ipucnn train --config train-py --model resnet18 --checkpoint-path out"),
    ("poprun --num-instances 2 python3 train.py --config resnet50 --imagenet-data-path /i",
     "poprun --num-instances 2 ipucnn train --config resnet50 --data-dir /i"),
    ("CUDA_VISIBLE_DEVICES=1 python run_benchmark.py --device-iter 8 --model resnet18",
     "CUDA_VISIBLE_DEVICES=1 ipucnn run --config run-benchmark-py --device-iterations 8 --model "
     "resnet18"),
    ("python train.py /d --lr 1 --aa rand-m9-mstd0.5-inc1 --sched poly",
     "ipucnn train --config timm-train-py --data-dir /d --lr 1 --rand-augment 2 "
     "--rand-augment-magnitude 27 --lr-schedule polynomial --lr-power 0.1"),
    ("python train.py /d --lr 1 --aa rand-n3 --recovery-interval 0",
     "ipucnn train --config timm-train-py --data-dir /d --lr 1 --rand-augment 3 "
     "--rand-augment-magnitude 30"),
    ("python3 resnext_inference_launch.py --nosynthetic --batch_size=6",
     "ipucnn run --config resnext-bulk --no-synthetic --batch-size 6"),
    # the launcher read the whole folder, whatever '--iterations' was
    ("python3 resnext_inference_launch.py --iterations 3", "ipucnn run --config resnext-bulk"),
    ("python3 resnext_inference_launch.py --synthetic --nosynthetic --iterations 3",
     "ipucnn run --config resnext-bulk --no-synthetic"),
    ("python3 resnext_inference_launch.py --synthetic",
     "ipucnn run --config resnext-bulk --synthetic --iterations 1"),
    ("python3 resnext_inference_launch.py --iterations 3 --synthetic",
     "ipucnn run --config resnext-bulk --synthetic --iterations 3"),
    ("python3 train.py --model efficientnet-b4 --pipeline-splits blocks/3/0/bn2 "
     "--recompute-checkpoints add_1 blocks/6 --gradient-accumulation 3",
     "ipucnn train --config train-py --model efficientnet-b4 --pipeline-splits _blocks/10/_bn1 "
     "--recompute-checkpoints '_blocks/3$' blocks/6 --recompute-mode auto "
     "--gradient-accumulation 3"),
    ("python3 train.py --recompute-checkpoints add --recompute-mode manual --model resnet50",
     "ipucnn train --config train-py --recompute-checkpoints 'layer1/0$' --recompute-mode manual "
     "--model resnet50"),
    ("python3 train.py --optimizer adam --momentum 0.5 --rmsprop-decay 0.9 --optimizer-eps 1e-3 "
     "--lr-schedule no --lr-decay 0.1 --lr-epoch-decay 5 8",
     "ipucnn train --config train-py --optimizer adam --optimizer-eps 1e-3 --lr-schedule no"),
    ("python3 train.py --momentum 0.5 --lr-decay 0.1 --lr-epoch-decay 5 8 --optimizer-eps 1e-3",
     "ipucnn train --config train-py --momentum 0.5 --lr-decay 0.1 --lr-epoch-decay 5 8"),
    ("python3 train.py --config resnet50 --rmsprop-decay 0.9 --lr-schedule exponential "
     "--lr-decay $D",
     "ipucnn train --config resnet50 --rmsprop-decay 0.9 --lr-schedule exponential "
     '--lr-decay "$D"'),
    ("poprun --num-instances 2 python3 train.py --config resnet50 --dataloader-rebatch-size 256",
     "poprun --num-instances 2 ipucnn train --config resnet50 --dataloader-rebatch-size 256 "
     "--dataloader-mode rebatched"),
    ("python3 run_benchmark.py --dataloader-rebatch-size 256 --model resnet18",
     "ipucnn run --config run-benchmark-py --model resnet18"),
    ("python3 train.py --recompute-checkpoints conv --model resnet50",
     "ipucnn train --config train-py --model resnet50"),
    ("python3 run_benchmark.py --normlayer batch --groupnorm-group-num 16 --norm-eps 1e-3",
     "ipucnn run --config run-benchmark-py --normlayer batch --norm-eps 1e-3"),
    ("python3 train.py --norm-num-groups 16 --norm-eps 1e-3 --batchnorm-momentum 0.2 "
     "--norm-type group",
     "ipucnn train --config train-py --groupnorm-group-num 16 --norm-eps 1e-3 --normlayer group"),
    ("python3 resnet_main.py --data-dir . --norm-type BATCH --norm-groups 16",
     "ipucnn train --config resnet-main-py --data-dir . --normlayer BATCH "
     "--dataset CIFAR-10"),
    ("python3 resnet_main.py --data-dir . --norm-groups 8",
     "ipucnn train --config resnet-main-py --data-dir . --groupnorm-group-num 8 "
     "--dataset CIFAR-10"),
    ("python3 train.py --imagenet-data-path /i --model resnet50",
     "ipucnn train --config train-py --model resnet50"),
    ("python3 train.py --data imagenet",
     "ipucnn train --config train-py --data imagenet --data-dir "
     "/localdata/datasets/imagenet-raw-data"),
    ("python3 resnext_inference_launch.py --synthetic=false --hide_output=False",
     "ipucnn run --config resnext-bulk --no-synthetic --no-hide-output"),
    ("python3 resnext_inference_launch.py -batch_size 4 -nosynthetic -num_ipus=3",
     "ipucnn run --config resnext-bulk --batch-size 4 --no-synthetic --instances 3"),
    ("make", "pip install ipucnn && ipucnn data fetch sample-images --out data/images"),
    ("sh rn50_pod16.sh --imagenet-data-path /i",
     "ipucnn plan --config resnet50 --launch pod16 --poprun --data-dir /i")])
def test_lines_of_every_program(line, command):
    (made,) = migrate(line)
    assert made.problems == ()
    assert made.command == command


SHORT = "ipucnn train --config train-py"


@pytest.mark.parametrize(("line", "command"), [
    ("cd a && python train.py --lr 1 > 'my log' 2>&1 &  # a try",
     f"cd a && {SHORT} --lr 1 > 'my log' 2>&1 &"),
    ("$ nohup python train.py --lr 1 | tee out.log", f"nohup {SHORT} --lr 1 | tee out.log"),
    ("(env) me@host:~/x$ python train.py", SHORT),
    ("!python train.py", SHORT),
    ("%run train.py --lr 1", f"{SHORT} --lr 1"),
    ("env A=1 'B=a b' python train.py", f"env A=1 B='a b' {SHORT}"),
    ("POPTORCH_CACHE_DIR=~/c python train.py --imagenet-data-path ~me/'a b' --data ~/$D",
     f'POPTORCH_CACHE_DIR=~/c {SHORT} --data-dir ~me/\'a b\' --data ~/"$D"'),
    ("python train.py --imagenet-data-path ~ --data imagenet",
     f"{SHORT} --data-dir ~ --data imagenet"),
    ("export A=3; python train.py", f"export A=3; {SHORT}"),
    ("for lr in 1 2; do python train.py --lr $lr; done",
     f'for lr in 1 2; do {SHORT} --lr "$lr"; done'),
    ('A=$B python train.py --data "$M" --batch-size ${N} --imagenet-data-path `pwd`/d',
     f'A="$B" {SHORT} --data "$M" --batch-size "${{N}}" --data-dir "`pwd`/d"'),
    ("python train.py /d --opt $O --sched $S --dataset $D",
     'ipucnn train --config timm-train-py --data-dir /d --optimizer "$O" --data "$D" --lr 0.05 '
     '--lr-schedule "$S"'),
    ("python train.py /d --model resnet50 -b $BS",
     'ipucnn train --config timm-train-py --data-dir /d --model resnet50 --batch-size "$BS"'),
    ("./distributed_train.sh $N /d",
     'ipucnn train --config timm-train-py --launcher torchrun --nproc "$N" --data-dir /d'),
    ("torchrun --nproc_per_node=$N train.py --data-path /i --epochs $E",
     'ipucnn train --launcher torchrun --nproc "$N" --config torchvision-train-py --data-dir /i '
     '--epoch "$E" --lr-schedule exponential --lr-decay 0.1 --lr-scheduler-freq 0.0333333'),
    ("python train.py --data-path /i --lr-step-size $S --model-ema -b $B",
     'ipucnn train --config torchvision-train-py --data-dir /i --batch-size "$B"'),
    ("python train.py /d --lr 1 --cutmix $C --mixup $M --aa $A --cutmix-minmax $R",
     'ipucnn train --config timm-train-py --data-dir /d --lr 1 --mixup-alpha "$M"'),
    ("python run_benchmark.py --config $C", 'ipucnn run --config "$C"'),
    ("python -O train.py --lr 1", f"{SHORT} --lr 1"),
    ("A=1 python3.8 -W ignore -X dev -u -B -m train --lr 1", f"A=1 {SHORT} --lr 1"),
    ("srun -n 4 python -u train.py --lr 1", f"srun -n 4 {SHORT} --lr 1"),
    ("python3 -u -m torch.distributed.launch --nproc_per_node=2 train.py --lr 1",
     "ipucnn train --launcher torchrun --nproc 2 --config train-py --lr 1"),
    ("bash -x rn50_pod16.sh", "ipucnn plan --config resnet50 --launch pod16 --poprun"),
    ("python \u201ctrain.py\u201d\u00a0\u2013model resnet50", f"{SHORT} --model resnet50"),
    ("torchrun --nproc-per-node=2 -m train --lr 1",
     "ipucnn train --launcher torchrun --nproc 2 --config train-py --lr 1"),
    ("torchrun --nnodes 2 --master_addr h --master_port 12 train.py --data-path i",
     "ipucnn train --launcher torchrun --nnodes 2 --rdzv-endpoint h:12 "
     "--config torchvision-train-py --data-dir i"),
    ("accelerate launch --num_processes 4 train.py --lr 1",
     "ipucnn train --launcher torchrun --nproc 4 --config train-py --lr 1"),
    ("deepspeed --num_gpus=4 train.py --lr 1",
     "ipucnn train --launcher torchrun --nproc 4 --config train-py --lr 1"),
    ("python train.py --checkpoint-path /d/<path>", f"{SHORT} --checkpoint-path '/d/<path>'"),
    ("python resnet_main.py --data-dir=./",
     "ipucnn train --config resnet-main-py --data-dir ./ --dataset CIFAR-10"),
    ("python restore.py --checkpoint-path <File path> > log",
     "ipucnn restore --checkpoint-path '<File path>' > log")])
def test_lines_of_a_shell_stay_what_they_are(line, command):
    (made,) = migrate(line)
    assert made.problems == ()
    assert made.command == command


@pytest.mark.parametrize(("line", "problem"), [
    ("resnet_main.py --data-dir d --batch-size 4 --num-ipus 4 --pipeline "
     "--gradient-accumulation-factor 2",
     "4 pipeline stages need a gradient accumulation of at least 7 (2 x stages - 1), not 2"),
    ("train.py --pipeline-splits layer2 --gradient-accumulation 2",
     "2 pipeline stages need a gradient accumulation of at least 3 (2 x stages - 1), not 2"),
    ("run_benchmark.py --pipeline-splits layer2",
     "2 pipeline stages need at least 2 device iterations, not 1")])
def test_plans_that_no_backend_executes_are_problems(line, problem):
    (made,) = migrate(f"python {line}")
    (found,) = made.problems
    assert found.startswith(problem)


def test_what_depends_on_a_variable_is_explained():
    (made,) = migrate("python train.py /d --model resnet50 -b $BS --cutmix $C")
    why = {row.given: row.why for row in made.rows}
    assert why["(its default)"] == "it cannot be computed here: set '--lr' yourself"
    assert why['--cutmix "$C"'].startswith("only the shell has its value: set '--cutmix-lambda")


@pytest.mark.parametrize(("options", "problem"), [
    ("-b abc", "'--batch-size abc' is not a positive number"),
    ("-b 0", "'--batch-size 0' is not a positive number"),
    ("--lr 1 --sched step --decay-epochs x", "'--decay-epochs x' is not a positive number"),
    ("--lr 1 --cutmix x", "'--cutmix x' has a wrong value"),
    ("--lr 1 --cutmix-minmax 0.2", "'--cutmix-minmax 0.2' has a wrong value"),
    ("--lr 1 --cutmix", "'--cutmix' has a wrong value")])
def test_wrong_values_are_problems(options, problem):
    (made,) = migrate(f"python train.py /d {options}")
    assert made.problems == (problem,)


def test_no_value_of_an_option_ends_a_translation():
    for case in every_option():
        script, option = case.values
        for words in ([], ["$V"], ["abc"]):
            draft = translate(script, parse(script, [option.spellings[0], *words]))
            assert "$V" not in words or not draft.problems or option.rule == "own_profile", option


def test_a_training_with_synthetic_data_can_recompute():
    (made,) = migrate("python resnet_synthetic_benchmark.py --recompute --mode train")
    assert made.problems == ()
    assert made.command.startswith("ipucnn train --enable-recompute")
    (made,) = migrate("python resnet_synthetic_benchmark.py --recompute")
    assert "recompute" not in made.command


def test_two_scripts_of_a_line_are_two_commands():
    first, second = migrate("python train.py --lr 1 && python validate.py --checkpoint-path c; ls")
    assert first.command == f"{SHORT} --lr 1"
    assert second.command == "ipucnn validate --checkpoint-path c; ls"


def test_what_cannot_run_unchanged_is_marked(capsys):
    assert invoke(["migrate", "python train.py /data --model convnext_tiny --opt lion --reprob "
                   "0.25"]) == 1
    out, err = capsys.readouterr()
    assert "--model convnext_tiny --optimizer lion" in out
    assert re.search(r"--reprob 0.25 +dropped +there is no random erasing", out)
    assert "before it runs: no model 'convnext_tiny' is installed" in err.replace("\n", " ")
    assert invoke(["migrate", "python3 run_benchmark_with_triton_server.py"]) == 0
    assert capsys.readouterr().out.startswith("# no counterpart")


def test_quotes_may_be_left_out(capsys):
    assert invoke(["migrate", "--from", "timm", "--json", "python", "train.py", "/a b", "--lr",
                   "0.1"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["commands"]
    assert made["command"] == "ipucnn train --config timm-train-py --data-dir '/a b' --lr 0.1"
    assert invoke(["migrate", "python restore.py --checkpoint-path c", "--json"]) == 0
    assert '"ipucnn restore' in capsys.readouterr().out
    assert invoke(["migrate", "python", "partition_dataset.py", "--data-dir", "d", "--output", "o",
                   "--verbose"]) == 0
    assert "--output o --verbose --partitions 8" in capsys.readouterr().out


def test_json_has_every_option(capsys):
    assert invoke(["migrate", "--json", "python3 train.py --lr 0.1 --what 3\npython3 restore.py "
                   "--checkpoint-path c"]) == 0
    first, second = json.loads(capsys.readouterr().out)["commands"]
    assert first["command"] == "ipucnn train --config train-py --lr 0.1"
    assert first["options"][1] == {"given": "--what 3", "becomes": None,
                                   "why": "train.py has no such option"}
    assert second["command"] == "ipucnn restore --checkpoint-path c"


@pytest.mark.parametrize(("text", "message"), [
    ("", "no command line is given"),
    ("python3 tain.py --lr 1", "'tain.py' is not a known script"),
    ("ipucnn train --lr 1", "is a command of ipucnn already"),
    ("python3 train.py --lr '1", "cannot read")])
def test_lines_that_are_none(text, message):
    with pytest.raises(UsageError, match=message):
        migrate(text)


def test_the_program_can_be_named():
    (made,) = migrate("python train.py --model resnet50", "timm")
    assert made.command.startswith("ipucnn train --config timm-train-py")
    with pytest.raises(UsageError, match="torchvision has no script"):
        migrate("python restore.py", "torchvision")


def test_an_unset_word_is_an_argument_of_nothing():
    draft = translate(scripts("graphcore")["train.py"], Arguments((), ("stray",)))
    assert draft.rows[0].why == "train.py takes no such argument"
    assert parse(scripts("timm")["train.py"], ["-b32"]).given[0].values == ("32",)
    assert scripts("timm")["train.py"].options["opt-betas"].takes == MANY


CONFIGS = """\
common: &common
  precision: "16.16"
  replicas: 1
  normlayer: batch
resnet_mine:
  <<: *common
  model: resnet50
  device_iterations: 128
  half_partial: true
  random_weights: false
  eight_bit_io: true
  normalization_location: ipu
"""

TRAIN = """\
mine:
  model: resnet50
  data: imagenet
  imagenet_data_path: /i
  pipeline_splits: [layer1/2 layer2/3]
  gradient_accumulation: 5
  available_memory_proportion: 0.2
  weight_decay: 1e-5
  lr_decay: 0.97
  precision: "16.32"
  optimizer: rmsprop_tf
  momentum: 0.9
  webdataset_percentage_to_use: 50
  checkpoint_path: out
  seed: null
"""


@pytest.mark.parametrize(("model", "names"), [
    ("efficientnet-b0", {
        "conv_stem": "_conv_stem", "bn2": "_bn1", "blocks/0/0/conv_pw": "_blocks/0/_project_conv",
        "blocks/0/0/bn2": "_blocks/0/_bn2", "blocks/3/0/conv_pw": "_blocks/5/_expand_conv",
        "blocks/6/0/se/conv_reduce": "_blocks/15/_se_reduce", "classifier": "_fc"}),
    ("mobilenet-v3-large", {
        "mb_block/11/seq/0": "features/12", "last_block/0": "features/16/0",
        "output": "classifier/3"}),
    ("mobilenet-v3-small", {"first_block": "features/0", "last_block": "features/12"})])
def test_modules_of_the_last_releases_have_names_here(model, names):
    modules = dict(create_model(model, weights="random").named_modules())
    for name, here in names.items():
        assert module_here(model, name) == here
        assert here.replace("/", ".") in modules


def test_names_that_no_network_has_stay_what_they_are():
    for model, name in (("efficientnet-b0", "blocks/0/1"), ("efficientnet-b0", "blocks/1/0/act1"),
                        ("resnet50", "layer1/2"), ("vgg", "features/3")):
        assert module_here(model, name) == name
    assert kept_here("resnet18", "add_8") == "add_8"  # it has eight blocks
    assert kept_here("resnet50", "layer4/0/downsample_0") == "layer4/0/downsample/0"


def test_profiles_of_an_inference_are_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs.yml").write_text(CONFIGS)
    assert invoke(["migrate", "--config", "configs.yml"]) == 0
    out = capsys.readouterr().out
    assert "ipucnn run --config resnet-mine.yaml" in out
    made = yaml.safe_load(Path("resnet-mine.yaml").read_text())
    assert made["device_iterations"] == 128
    assert made["precision"] == "16.16"
    assert made["iterations"] == 100  # the script's default
    assert made["half_partial"] is True
    assert "random_weights" not in made
    assert invoke(["config", "show", "resnet-mine.yaml"]) == 0


def test_profiles_of_a_training_are_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs.yml").write_text(TRAIN)
    assert invoke(["migrate", "--json", "--config", "configs.yml", "--out", "made"]) == 0
    (profile,) = json.loads(capsys.readouterr().out)["profiles"]
    assert profile["command"] == "train"
    text = Path("made", "mine.yaml").read_text()
    assert "# webdataset_percentage_to_use: 50: dropped, a training reads all shards" in text
    made = yaml.safe_load(text)
    assert made["pipeline_splits"] == ["layer1/2", "layer2/3"]
    assert made["weight_decay"] == 1e-5
    assert (made["lr_decay"], made["precision"]) == (0.97, "16.32")
    assert (made["optimizer"], made["lr"], made["momentum"]) == ("rmsprop_tf", 0.01, 0.9)
    assert "no_checkpoints" not in made
    assert invoke(["plan", "--config", "made/mine.yaml", "--gradient-accumulation", "5"]) == 0


def test_the_options_file_of_timm_is_converted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("args.yaml").write_text("data_dir: /i\nmodel: resnet50\nbatch_size: 32\nopt: adamw\n"
                                 "lr: 0.001\namp: true\nmixup: 0.2\nchannels_last: false\n"
                                 "aa: null\n")
    assert invoke(["migrate", "--config", "args.yaml", "--out", "made"]) == 0
    made = yaml.safe_load(Path("made", "args.yaml").read_text())
    assert made["optimizer"] == "adamw"
    assert "nesterov" not in made
    assert made["precision"] == "16.32" or made["precision"] == 16.32


ARGS = """\
{aa: null, amp: false, amp_dtype: float16, batch_size: 64, bce_loss: false, checkpoint_hist: 10,
 class_map: '', clip_grad: null, cutmix: 0.0, cutmix_minmax: null, data_dir: /my photos,
 decay_epochs: 90, decay_milestones: [90, 180, 270], decay_rate: 0.1, device: cpu, epochs: 300,
 eval_metric: top1, experiment: exp1, grad_accum_steps: 1, hflip: 0.5, initial_checkpoint: '',
 layer_decay: null, lr: null, lr_base: 0.1, lr_base_scale: '', lr_base_size: 256, mixup: 0.0,
 model: resnet50, model_ema: false, model_ema_decay: 0.9998, model_kwargs: {drop_rate: 0.1},
 momentum: 0.9, no_aug: false, num_classes: null, opt: sgd, opt_betas: null, opt_kwargs: {},
 output: '', pretrained: false, ratio: [0.75, 1.3333333333333333], recovery_interval: 0,
 resume: '', scale: [0.08, 1.0], sched: cosine, seed: 42, smoothing: 0.1, split_bn: false,
 torchcompile: null, train_split: train, warmup_epochs: 5, weight_decay: 2.0e-05, workers: 4}
"""
"""Options of timm's train.py as it writes them: with its defaults, of which many are empty."""


def test_unset_options_of_timm_are_not_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("args.yaml").write_text(ARGS)
    assert invoke(["migrate", "--config", "args.yaml", "--out", "made"]) == 0
    assert [path.name for path in Path("made").iterdir()] == ["args.yaml"]
    text = Path("made", "args.yaml").read_text()
    assert "# model_kwargs: drop_rate=0.1: dropped, options of a model" in text
    assert "# recovery_interval: 0: dropped, 0 saves nothing within an epoch" in text
    made = yaml.safe_load(text)
    assert (made["lr"], made["data_dir"]) == (0.025, "/my photos")
    assert made["checkpoint_path"] == str(Path("output", "train", "exp1"))
    assert not {"checkpoint_save_steps", "weights", "compile", "loss"} & set(made)


def test_what_the_old_application_replaced_in_a_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs.yml").write_text(
        "bytes: {model: resnet50, iterations: 3, eight_bit_io: True}\n"
        "split: {model: resnet50, iterations: 3, pipeline_splits: [layer2]}\n")
    assert invoke(["migrate", "--config", "configs.yml", "--script", "run_benchmark.py"]) == 1
    assert "2 pipeline stages need at least 2 device iterations" in capsys.readouterr().err
    made = yaml.safe_load(Path("bytes.yaml").read_text())
    assert made["eight_bit_io"] is True
    assert "normalization_location" not in made
    options = resolve(RunOptions, {"config": "bytes.yaml"}, "run")
    assert options.plan(synthetic=False).normalisation == "device"


def test_an_existing_file_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_args.yaml").write_text(ARGS)
    Path("my-args.yaml").write_text("mine")
    assert invoke(["migrate", "--config", "my_args.yaml"]) == 2
    err = capsys.readouterr().err.replace("\n", " ")
    assert "'my-args.yaml' exists, and is not overwritten" in err
    assert "name another folder with '--out DIR'" in err
    assert Path("my-args.yaml").read_text() == "mine"


def test_the_suggested_conversion_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my args.yaml").write_text("model: resnet50\nlr: 0.3\n")  # of several scripts
    (made,) = migrate("python train.py /d -c 'my args.yaml' --amp")
    assert made.command == ("ipucnn train --data-dir /d --config 'profiles/my args.yaml' "
                            "--precision 16.32")
    (suggested,) = re.findall("'ipucnn (migrate .*)' converts", made.problems[0])
    assert invoke(shlex.split(suggested)) == 0
    assert refusal("train", shlex.split(made.command)[1:]) == ""


def test_the_home_folder_is_expanded_behind_an_equals_sign(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs.yml").write_text(CONFIGS)
    assert invoke(["migrate", "--config=~/configs.yml", "--out=~/made"]) == 0
    assert (tmp_path / "made" / "resnet-mine.yaml").exists()
    assert invoke(["migrate", "--config=~no-such-user/configs.yml"]) == 2
    assert "cannot read '~no-such-user/configs.yml'" in capsys.readouterr().err.replace("\n", " ")


def test_options_of_a_conversion_need_a_file(capsys):
    for words in (["--out", "made"], ["--script", "timm"]):
        assert invoke(["migrate", *words, "python train.py --model resnet50"]) == 2
        assert f"'{words[0]}' is for '--config'" in capsys.readouterr().err


def test_profiles_of_one_file_name_are_refused(tmp_path, capsys):
    place = tmp_path / "configs.yml"
    place.write_text("my_net: {model: resnet18}\nmy-net: {model: resnet50}\n")
    assert invoke(["migrate", "--config", str(place), "--out", str(tmp_path / "made")]) == 2
    assert "profiles 'my_net' and 'my-net' would both be" in capsys.readouterr().err
    place.write_text("../net: {model: resnet18, batch-size: 4}\n")
    assert invoke(["migrate", "--config", str(place), "--out", str(tmp_path / "made")]) == 0
    assert [one.name for one in (tmp_path / "made").iterdir()] == ["..-net.yaml"]


@pytest.mark.parametrize(("content", "message"), [
    ("[1, 2]", "is not a mapping"), ("a: [", "is not YAML"), ("a: 2026-13-01", "is not YAML"),
    ("a: !!timestamp x", "is not YAML"), ("a: !!bool x", "is not YAML"),
    ("a: {batch-size: 0x" + "f" * 5000 + "}", "is not YAML"),
    ("a0: &b0 [x]\n" + "".join(f"a{n}: &b{n} [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 40)),
     "more than 100,000"),
    ("a: &a [" + ", ".join(["*a"] * 5000) + "]", "more than 100,000"),
    (None, "cannot read")])
def test_configurations_that_are_none(tmp_path, capsys, content, message):
    place = tmp_path / "configs.yml"
    if content is not None:
        place.write_text(content)
    assert invoke(["migrate", "--config", str(place), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
