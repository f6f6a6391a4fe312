/* Computes superpixels beside the page's own thread. */
import { superpixels } from "./superpixels.js";

self.addEventListener("message", ({ data: { rgba, width, height, size } }) => {
  const parts = superpixels(rgba, width, height, size);
  self.postMessage(parts, [parts.buffer]);
});
