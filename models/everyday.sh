#!/usr/bin/env bash
# Trains models/everyday.onnx: models/everyday.sh IMAGES FOLDER
#
# IMAGES has train/ and val/ with images/, masks/ and classes.txt; README.md says what these are. FOLDER gets everyday.onnx
# (int8), everyday-fp32.onnx and the reports of the training. Takes about 35 minutes on two cores. A stopped training continues
# when the script is started again.
set -euo pipefail
images=${1:?usage: models/everyday.sh IMAGES FOLDER}
out=${2:?usage: models/everyday.sh IMAGES FOLDER}
train=${TRAIN:-target/release/maskcast-train}

mkdir -p "$out"
if [ ! -e "$out/run/best.safetensors" ] || [ ! -e "$out/run/report.json" ]; then
	if [ -e "$out/run/checkpoint.safetensors" ]; then
		"$train" resume "$out/run"
	else
		# Few epochs: the masks are proposals of networks, and a longer training learns their errors and forgets what the
		# encoder knows from ImageNet.
		"$train" fit "$images" -o "$out/run" --encoder efficientnet-lite0 --input 384x224 --epochs 7 --batch 8
	fi
fi
cp "$out/run/model.onnx" "$out/everyday.onnx"
cp "$out/run/model-fp32.onnx" "$out/everyday-fp32.onnx"
