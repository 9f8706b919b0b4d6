#!/bin/sh
# The whole product in one go: draw JPEG files, train on them, be interrupted, resume, validate,
# classify with the trained checkpoint, and name photographs with a plugin.  sh scripts/demo.sh BIN FOLDER
set -eu
ipucnn="$1/ipucnn"
folder="$2"
data="$folder/shapes"
saved="$folder/checkpoints"

rm -rf "$saved"
"$ipucnn" data shapes --out "$data" --per-class 750 --validation-per-class 50 --size 64

"$ipucnn" train --model resnet18 --data image_folder --data-dir "$data" --input-size 32 \
  --precision full --batch-size 32 --optimizer adamw --lr 0.0015 --weight-decay 0.01 \
  --lr-schedule cosine --warmup-epoch 0.3 --epoch 2 --augmentation none \
  --validation-mode during --validation-frequency 2 --checkpoint-path "$saved" &
training=$!
trap 'kill "$training" 2>/dev/null || true' INT TERM
while [ ! -e "$saved/resnet18_image_folder_1.pt" ] && kill -0 "$training" 2>/dev/null; do
  sleep 1
done
sleep 8
echo "== interrupting it in the middle of an epoch ==" >&2
kill -TERM "$training" 2>/dev/null || true
wait "$training" || [ $? -eq 143 ]
trap - INT TERM

echo "== resuming ==" >&2
"$ipucnn" restore --checkpoint-path "$saved"
"$ipucnn" validate --checkpoint-path "$saved/resnet18_image_folder_2.pt" --per-class
echo "== classifying a folder ==" >&2
"$ipucnn" run --model resnet18 --input-size 32 --precision full --data image_folder \
  --weights "$saved/resnet18_image_folder_2.pt" --data-dir "$data/validation" \
  --batch-size 16 --predictions "$folder/predictions.csv" --result "$folder/result.json"
echo "Look at $folder/predictions.csv and $folder/result.json."
sh "$(dirname "$0")/demo-photographs.sh" "$1" "$folder"
