#!/usr/bin/env bash
# Trains models/everyday.onnx: models/everyday.sh IMAGES CLIPS FOLDER
#
# IMAGES is a data set with train/ and val/, each with images/ and masks/, and classes.txt; CLIPS has recordings of fixed cameras;
# README.md describes both. FOLDER gets everyday.onnx (int8), everyday-fp32.onnx and the reports of the training. Takes about four
# hours on two cores. After an interruption, the same command continues. Needs ffmpeg and what everyday-masks.py names.
set -euo pipefail
usage="usage: models/everyday.sh IMAGES CLIPS FOLDER"
images=$(realpath "${1:?$usage}")
clips=$(realpath "${2:?$usage}")
out=${3:?$usage}
mkdir -p "$out"
out=$(realpath "$out")
train=${TRAIN:-target/release/maskcast-train}
models=$(realpath "$(dirname "$0")")

# step NAME DATA OPTIONS: starts, continues or skips a run.
step() {
	local run=$out/$1 data=$2
	shift 2
	if [ -e "$run/report.json" ]; then
		return
	elif [ -e "$run/checkpoint.safetensors" ]; then
		"$train" resume "$run"
	else
		"$train" fit "$data" -o "$run" --encoder efficientnet-lite2 --decoder-widths 96,48,32,16 --batch 8 "$@"
	fi
}

step first "$images" --input 384x224 --frozen-epochs 2 --epochs 6 --encoder-lr 3e-4
# Crops at the scale of the model's input, with small people (--scale-min) and unknown objects (--void-as).
step second "$images" --init "$out/first/best.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.5 --scale-max 1.5 --void-as other --ema 0.995 --lr 1.5e-3 --encoder-lr 3e-4 --epochs 11

# propose IMAGES NAME MAP OPTIONS: both runs vote. MAP corrects classes that cannot be in these images.
propose() {
	local source=$1 name=$2 map=${3:+,map=$models/$3}
	shift 3
	"$train" label "$source" -o "$out/proposed/$name" --classes "$images/train/classes.txt" --flip "$@" \
		--teacher "$out/first/model-fp32.onnx$map" --teacher "$out/second/model-fp32.onnx$map"
}

# The void pixels of the masks: animals and other things that their makers did not know.
propose "$images/train/images" train "" --agree 0.7 --fill "$images/train/masks"
# Frames of two fixed cameras. Asphalt from above was water in the masks of the same car park.
frames() {
	mkdir -p "$out/frames/$1"
	ffmpeg -v error -y -i "$clips/$2" -vf "fps=$3,scale=512:-2" -frames:v "$4" -q:v 3 "$out/frames/$1/clip-$1-%03d.jpg"
}
frames parking car-detection.mp4 1 25
frames dashcam dashcam-540p25.mp4 1.4 12
propose "$out/frames/parking" parking everyday-parking.toml --scales 1,1.5 --agree 0.6
propose "$out/frames/dashcam" dashcam "" --scales 1,1.5 --agree 0.6
mkdir -p "$out/known-parking"
cp "$images"/train/images/camera-parking-* "$out/known-parking"
propose "$out/known-parking" known-parking everyday-parking.toml --scales 1,1.5 --agree 0.6

# One data set of them all; the parking frames replace those of the same name.
data=$out/data
mkdir -p "$data/train/images" "$data/train/masks"
for part in train parking dashcam known-parking; do
	for kind in images masks; do
		cp "$out/proposed/$part/$kind"/* "$data/train/$kind"
	done
done
cp "$images/train/classes.txt" "$data/train"
ln -sfn "$images/val" "$data/val"

[ -e "$out/start.safetensors" ] || "$train" weights average "$out/second/best.safetensors" \
	"$out/first/best.safetensors=0.3" -o "$out/start.safetensors"
step third "$data" --init "$out/start.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.45 --scale-max 1.4 --void-as other --ema 0.99 --lr 1e-3 --encoder-lr 2e-4 --epochs 4

# Small copies of people and vehicles, for those that are far away.
step fourth "$data" --init "$out/third/best.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.45 --scale-max 1.4 --void-as other --paste person,vehicle --ema 0.99 --lr 8e-4 --encoder-lr 1.5e-4 --epochs 2

# corrected DATA PROPOSED: a data set like the one above, whose photographs have the masks PROPOSED, corrected by an ImageNet
# classifier: without vehicles and animals that it does not see, and with animals that the makers of the masks did not know.
corrected() {
	[ -e "$out/$1/train/classes.txt" ] && return
	mkdir -p "$out/$1/train"
	ln -sfn "$data/train/images" "$out/$1/train/images"
	cp -r "$data/train/masks" "$out/$1/train"
	python3 "$models/everyday-masks.py" "$images/train/images" "$images/train/masks" "$2" "$out/$1/train/masks"
	ln -sfn "$images/val" "$out/$1/val"
	cp "$images/train/classes.txt" "$out/$1/train"
}
corrected data-fifth "$out/proposed/train/masks"
step fifth "$out/data-fifth" --init "$out/fourth/best.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.45 --scale-max 1.4 --void-as other --paste person,vehicle --ema 0.99 --lr 8e-4 --encoder-lr 1.5e-4 --epochs 3

# The void pixels again, by the model that the corrected masks have made.
"$train" label "$images/train/images" -o "$out/proposed/again" --classes "$images/train/classes.txt" --flip --agree 0.7 \
	--fill "$images/train/masks" --teacher "$out/fifth/model-fp32.onnx"
corrected data-sixth "$out/proposed/again/masks"
step sixth "$out/data-sixth" --init "$out/fifth/best.safetensors" --strategy finetune --input 512x288 --crop 384x224 \
	--scale-min 0.45 --scale-max 1.4 --void-as other --paste person,vehicle --ema 0.99 --lr 6e-4 --encoder-lr 1.2e-4 --epochs 3

# Pixels that are unlike the training images become `other`, and regions of which the network is not sure.
export_model() {
	"$train" export "$out/sixth/best.safetensors" "$data" --reject other=0.03 \
		--reject-regions other=0.5,person=0.4,bicycle=0.7,vehicle=0.55 "$@"
}
export_model -o "$out/everyday-fp32.onnx"
export_model -o "$out/everyday.onnx" --int8 --calibration 64
