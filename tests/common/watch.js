// A minimal WHEP player. Argument: the endpoint. Its state is in `window.watching`.
const [endpoint] = arguments;
const watching = { endpoint, presented: 0, state: 'new' };
(window.watching ||= []).push(watching);
const peer = new RTCPeerConnection();
watching.peer = peer;
peer.addTransceiver('video', { direction: 'recvonly' });
peer.addTransceiver('audio', { direction: 'recvonly' });
const video = document.createElement('video');
watching.video = video;
[video.muted, video.autoplay, video.playsInline] = [true, true, true];
// Inside the viewport: Chromium does not present frames of a video that is not visible.
video.style = 'position: fixed; left: 0; top: 0; width: 320px; height: 180px';
document.body.append(video);
peer.ontrack = ({ track, receiver }) => {
  if (track.kind !== 'video') return;
  receiver.jitterBufferTarget = 0;
  video.srcObject = new MediaStream([track]);
};
peer.onconnectionstatechange = () => { watching.state = peer.connectionState; };
const presented = (now, frame) => {
  watching.presented = frame.presentedFrames;
  watching.size = [frame.width, frame.height];
  video.requestVideoFrameCallback(presented);
};
video.requestVideoFrameCallback(presented);
(async () => {
  await peer.setLocalDescription(await peer.createOffer());
  const started = performance.now();
  const headers = { 'Content-Type': 'application/sdp' };
  const response = await fetch(endpoint, { method: 'POST', headers, body: peer.localDescription.sdp });
  watching.answered_ms = performance.now() - started;
  watching.status = response.status;
  watching.location = response.headers.get('Location');
  watching.answer = await response.text();
  await peer.setRemoteDescription({ type: 'answer', sdp: watching.answer });
})().catch((error) => { watching.error = String(error); });
return window.watching.length - 1;
