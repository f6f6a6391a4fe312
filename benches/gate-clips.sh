#!/bin/sh
# Makes clips for `maskcast bench --gate` from a clip of a still road with cars and one of a room with people, with ffmpeg:
# a still road with sensor noise, rain, and a light that is switched.
#
# benches/gate-clips.sh ROAD ROOM FOLDER
#
# ROAD: nothing moves in it from 0.8 s to 4.2 s. The table in docs/streams.md was measured with car-detection.mp4 and
# one-by-one-person-detection.mp4 of Intel's sample videos (github.com/intel-iot-devkit/sample-videos, CC BY 4.0).
set -eu
road=$1 room=$2 folder=$3
mkdir -p "$folder"
make_clip() { ffmpeg -v error -nostdin -y "$@"; }
h264="-an -c:v libx264 -preset fast -crf 23 -g 50 -pix_fmt yuv420p"

make_clip -ss 0.8 -t 3.4 -i "$road" -an -c:v ffv1 "$folder/quiet.mkv"
make_clip -stream_loop 6 -i "$folder/quiet.mkv" -vf "noise=alls=4:allf=t" $h264 "$folder/still.mp4"
rm "$folder/quiet.mkv"

size=$(ffprobe -v error -select_streams v -show_entries stream=width,height -of csv=p=0:s=x "$road")
rate=$(ffprobe -v error -select_streams v -show_entries stream=r_frame_rate -of csv=p=0 "$road")
streaks="color=black:s=$size:r=$rate,format=gray,geq=lum='255*gt(random(1)\,0.9985)',dblur=angle=80:radius=14,lutyuv=y=val*8"
make_clip -i "$road" -filter_complex \
    "$streaks,format=gbrp[rain];[0:v]format=gbrp[road];[road][rain]blend=all_mode=screen:shortest=1" \
    $h264 "$folder/rain.mp4"

make_clip -t 60 -i "$room" -vf "eq=brightness='if(between(mod(t,10),4,7),-0.3,0)':eval=frame" $h264 "$folder/light.mp4"
