#!/usr/bin/env bash
# The demo: runs pipelines/demo.toml. With a number of seconds, records that much of the RTSP stream to demo.mp4, writes one
# frame to demo.png, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-}
service=target/release/maskcast
page=http://127.0.0.1:8080/
stream=rtsp://127.0.0.1:8554/street

if [ -z "$seconds" ]; then
    echo "page: $page   RTSP: $stream   stop: Ctrl-C"
    exec "$service" run pipelines/demo.toml
fi
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "SECONDS=$seconds is not a whole number of seconds" >&2; exit 2; }

"$service" run pipelines/demo.toml &
pid=$!
trap 'kill -TERM $pid 2>/dev/null; wait $pid || true' EXIT
echo "page: $page   RTSP: $stream   stops after $seconds s"
# Waits until the service is ready or has ended.
until curl -sf -o /dev/null --retry 5 --retry-all-errors --retry-delay 1 "${page}readyz"; do
    kill -0 $pid 2>/dev/null || { trap - EXIT; wait $pid; exit 1; }
done
ffmpeg -v error -nostdin -y -rtsp_transport tcp -i "$stream" -t "$seconds" -c copy -movflags +faststart demo.mp4
ffmpeg -v error -nostdin -y -ss "$((seconds / 2))" -i demo.mp4 -frames:v 1 demo.png
trap - EXIT
kill -TERM $pid
wait $pid
echo "written: demo.mp4 and demo.png"
