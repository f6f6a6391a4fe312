#!/usr/bin/env bash
# The measurement in docs/development/performance.md, "Pretraining": models/pretraining.sh CAMVID FOLDER
#
# The drives of CamVid simulate a change of place. First, a U-Net is trained on two of them (163 images). Then each
# strategy trains on the same 204 images of a third drive, with the same epochs and seeds, and is measured on the 101
# validation images of that drive. Takes two hours on two cores. A stopped measurement continues when the script is
# started again.
set -euo pipefail
camvid=${1:?usage: models/pretraining.sh CAMVID FOLDER}
out=${2:?usage: models/pretraining.sh CAMVID FOLDER}
train=${TRAIN:-target/release/maskcast-train}
seeds=${SEEDS:-0,1}

mkdir -p "$out/earlier-lists" "$out/lists"
(cd "$camvid" && ls train/0001TP_* train/0006R0_*) > "$out/earlier-lists/train.txt"
(cd "$camvid" && ls train/0016E5_*) > "$out/lists/train.txt"
(cd "$camvid" && ls val/*) | tee "$out/lists/val.txt" > "$out/earlier-lists/val.txt"

# A narrow decoder, because the encoders are compared.
small=(--input 256x160 --batch 8 --decoder-widths 64,48,32,16)

if [ ! -e "$out/earlier/model.onnx" ]; then
	if [ -e "$out/earlier/checkpoint.safetensors" ]; then
		"$train" resume "$out/earlier"
	else
		"$train" fit "$camvid" --lists "$out/earlier-lists" -o "$out/earlier" "${small[@]}" --epochs 25
	fi
fi

"$train" compare "$camvid" --lists "$out/lists" -o "$out/efficientnet-lite0" "${small[@]}" --epochs 20 --seeds "$seeds" \
	--from-model "$out/earlier/best.safetensors"

# VGG16 needs many times the work for each image: smaller images, fewer epochs, one seed.
"$train" compare "$camvid" --lists "$out/lists" -o "$out/vgg16" --input 192x128 --batch 8 --decoder-widths 64,48,32,16 \
	--epochs 10 --seeds 0 --encoders vgg16 --strategies scratch,freeze-then-finetune
