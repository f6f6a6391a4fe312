/* Video by WHEP: an HTTP request with an offer, a response with the answer, then WebRTC. */
import { Refusal, request } from "./api.js";

/** Maximum delay of the offer for gathering ICE candidates. Local candidates take a few milliseconds. */
const GATHER_MS = 400;

/** STUN and TURN servers from the last response. The first attempt has none. */
let iceServers = [];

/** A WebRTC connection. Used once: `start`, then `close`, also after an error. */
export class Whep {
  #connection = null;
  #session = null;
  #closed = false;

  /** `onEnd` is called once with the error when the connection fails after the start. */
  constructor(name, video, onEnd) {
    this.path = `/whep/${encodeURIComponent(name)}`;
    this.video = video;
    this.onEnd = onEnd;
  }

  static get isSupported() {
    return typeof RTCPeerConnection === "function";
  }

  /** Throws a [Refusal] when the service refuses. Frames arrive later, if at all. */
  async start() {
    const connection = (this.#connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" }));
    const transceiver = connection.addTransceiver("video", { direction: "recvonly" });
    preferH264(transceiver);
    connection.addEventListener("track", ({ receiver, track }) => {
      atOnce(receiver);
      if (!this.#closed) this.video.srcObject = new MediaStream([track]);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(connection.connectionState)) this.#end("the connection failed");
    });
    await connection.setLocalDescription(await connection.createOffer());
    await gathered(connection);
    if (this.#closed) return;
    const response = await request("POST", this.path, {
      body: connection.localDescription.sdp,
      type: "application/sdp",
    });
    const location = response.headers.get("Location");
    // Only the path: behind a proxy the service may have another host name.
    if (location !== null) this.#session = new URL(location, new URL(this.path, document.baseURI)).pathname;
    iceServers = servers(response.headers.get("Link") ?? "");
    const answer = await response.text();
    if (this.#closed) {
      this.#leave();
      return;
    }
    await connection.setRemoteDescription({ type: "answer", sdp: answer });
    for (const receiver of connection.getReceivers()) atOnce(receiver);
  }

  /** Closes the connection here and at the service, which would otherwise send until a timeout. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection?.close();
    if (this.video.srcObject) this.video.srcObject = null;
    this.#leave();
  }

  #leave() {
    if (this.#session === null) return;
    const session = this.#session;
    this.#session = null;
    request("DELETE", session, { keepalive: true, quiet: true }).catch(() => {});
  }

  #end(reason) {
    if (this.#closed) return;
    this.onEnd(new Refusal(0, reason));
  }
}

/** Shows frames as soon as they arrive, without a jitter buffer. */
function atOnce(receiver) {
  if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
  if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0;
}

function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = ({ mimeType }) => mimeType.toLowerCase() === "video/h264";
  transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((codec) => !isH264(codec))]);
}

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_MS);
    connection.addEventListener("icegatheringstatechange", () => {
      if (connection.iceGatheringState === "complete") resolve();
    });
  });
}

/** `Link: <turn:host:3478>; rel="ice-server"; username="…"; credential="…"`, one or more. */
function servers(links) {
  const found = [];
  for (const [, urls, rest] of links.matchAll(/<((?:stun|turns?):[^>]*)>((?:\s*;\s*[\w-]+="(?:[^"\\]|\\.)*")*)/g)) {
    const pairs = [...rest.matchAll(/([\w-]+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value.replace(/\\(.)/g, "$1")]);
    const { rel, username, credential } = Object.fromEntries(pairs);
    if (rel === "ice-server") found.push(username === undefined ? { urls } : { urls, username, credential });
  }
  return found;
}
