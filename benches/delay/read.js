// Reads the number that the camera draws on its frames, with the time at which each frame was first displayed. Arguments:
// the transport ("whep" or "mjpeg") and the name of the stream. The result is in `window.reading`.
const [transport, stream] = arguments;
const reading = { seen: [], unread: 0, error: null, first_ms: null };
window.reading = reading;
document.body.replaceChildren();

// The code is in the lowest quarter: 8 × 4 cells, each drawn as 8 × 8 pixels here.
const [columns, rows, side] = [8, 4, 8];
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [columns * side, rows * side];
const context = canvas.getContext('2d', { willReadFrequently: true });
let last = -1;
const began = performance.now();

function readFrame(image, width, height, at) {
  context.drawImage(image, 0, height - height / 4, width, height / 4, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let bits = 0n;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const pixel = 4 * ((row * side + side / 2) * canvas.width + column * side + side / 2);
      const bright = pixels[pixel] + pixels[pixel + 1] + pixels[pixel + 2] > 3 * 128;
      if (bright) bits |= 1n << BigInt(row * columns + column);
    }
  }
  const number = Number(bits >> 16n);
  const check = (Math.imul(number, 40503) ^ 0x5aa5) & 0xffff;
  if (Number(bits & 0xffffn) !== check) {
    reading.unread += 1;
  } else if (number !== last) {
    last = number;
    reading.first_ms ??= performance.now() - began;
    reading.seen.push([number, at]);
  }
}

const now = () => performance.timeOrigin + performance.now();
const style = 'position: fixed; left: 0; top: 0; width: 640px; height: 360px';

function mjpeg() {
  const image = document.createElement('img');
  image.style = style;
  image.src = `/mjpeg/${stream}`;
  document.body.append(image);
  const frame = () => {
    const at = now();
    if (image.naturalWidth > 0) readFrame(image, image.naturalWidth, image.naturalHeight, at);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

async function whep() {
  const video = document.createElement('video');
  [video.muted, video.autoplay, video.playsInline, video.style] = [true, true, true, style];
  document.body.append(video);
  const peer = (reading.peer = new RTCPeerConnection());
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.ontrack = ({ receiver, track }) => {
    if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
    if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
    video.srcObject = new MediaStream([track]);
  };
  const frame = () => {
    const at = now();
    readFrame(video, video.videoWidth, video.videoHeight, at);
    video.requestVideoFrameCallback(frame);
  };
  video.requestVideoFrameCallback(frame);
  await peer.setLocalDescription(await peer.createOffer());
  const headers = { 'Content-Type': 'application/sdp' };
  const response = await fetch(`/whep/${stream}`, { method: 'POST', headers, body: peer.localDescription.sdp });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  await peer.setRemoteDescription({ type: 'answer', sdp: text });
}

if (transport === 'mjpeg') mjpeg();
else whep().catch((error) => { reading.error = String(error); });
return true;
