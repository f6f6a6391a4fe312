#!/usr/bin/env bash
# The demo: runs pipelines/demo.toml. With a number of seconds, records that much of the RTSP stream "yard" to demo.mp4, writes
# demo.png with one frame of each stream, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-}
service=target/release/maskcast
page=http://127.0.0.1:8080/
rtsp=rtsp://127.0.0.1:8554

if [ -z "$seconds" ]; then
    echo "page: $page   RTSP: $rtsp/yard and $rtsp/indoors   stop: Ctrl-C"
    exec "$service" run pipelines/demo.toml
fi
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "SECONDS=$seconds is not a whole number of seconds" >&2; exit 2; }

"$service" run pipelines/demo.toml &
pid=$!
trap 'kill -TERM $pid 2>/dev/null; wait $pid || true' EXIT
echo "page: $page   RTSP: $rtsp/yard and $rtsp/indoors   stops after $seconds s"
# Waits until the service is ready or has ended.
until curl -sf -o /dev/null --retry 5 --retry-all-errors --retry-delay 1 "${page}readyz"; do
    kill -0 $pid 2>/dev/null || { trap - EXIT; wait $pid; exit 1; }
done
ffmpeg -v error -nostdin -y -rtsp_transport tcp -i "$rtsp/yard" -t "$seconds" -c copy -movflags +faststart demo.mp4
ffmpeg -v error -nostdin -y -rtsp_transport tcp -i "$rtsp/indoors" -frames:v 1 .demo/indoors.png
ffmpeg -v error -nostdin -y -ss "$((seconds / 2))" -i demo.mp4 -i .demo/indoors.png -frames:v 1 \
    -filter_complex "[0]scale=-2:540[yard];[1]scale=-2:540[indoors];[yard][indoors]hstack" demo.png
trap - EXIT
kill -TERM $pid
wait $pid
echo "written: demo.mp4 and demo.png"
