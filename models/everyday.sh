#!/usr/bin/env bash
# Trains models/everyday.onnx: models/everyday.sh IMAGES FOLDER
#
# IMAGES is a data set with train/ and val/, each with images/ and masks/, and classes.txt; README.md describes the images. FOLDER
# gets everyday.onnx (int8), everyday-fp32.onnx and the reports of the training. Takes about two hours on two cores. After an
# interruption, the same command continues the training.
set -euo pipefail
images=${1:?usage: models/everyday.sh IMAGES FOLDER}
out=${2:?usage: models/everyday.sh IMAGES FOLDER}
train=${TRAIN:-target/release/maskcast-train}

# step NAME OPTIONS: starts, continues or skips a run.
step() {
	local run=$out/$1
	shift
	if [ -e "$run/report.json" ]; then
		return
	elif [ -e "$run/checkpoint.safetensors" ]; then
		"$train" resume "$run"
	else
		"$train" fit "$images" -o "$run" --encoder efficientnet-lite2 --decoder-widths 96,48,32,16 --batch 8 "$@"
	fi
}

mkdir -p "$out"
step first --input 384x224 --frozen-epochs 2 --epochs 6 --encoder-lr 3e-4
# Crops at the scale of the model's input, with small people (--scale-min) and unknown objects (--void-as). Few epochs: the
# masks are proposals of networks, and a long training learns their errors.
step second --init "$out/first/best.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.5 --scale-max 1.5 --void-as other --ema 0.995 --lr 1.5e-3 --encoder-lr 3e-4 --epochs 11

# Pixels that are unlike the training images become `other`.
export_model() {
	"$train" export "$out/second/best.safetensors" "$images" --reject other=0.03 "$@"
}
export_model -o "$out/everyday-fp32.onnx"
export_model -o "$out/everyday.onnx" --int8
