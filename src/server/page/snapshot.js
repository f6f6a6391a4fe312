/* Saves a snapshot as a file. */
import { ofStream, request } from "./api.js";
import { announce, complain, make } from "./dom.js";
import { fileTime } from "./words.js";

export async function saveSnapshot(name) {
  try {
    const response = await request("GET", ofStream(name, "/snapshot.jpg"));
    const at = new Date();
    const address = URL.createObjectURL(await response.blob());
    const link = make("a", { href: address, download: `${name}_${fileTime(at)}.jpg`, hidden: true });
    document.body.append(link);
    link.click();
    link.remove();
    // By then the browser has started the download.
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    announce(`Snapshot of ${name} saved`);
  } catch (error) {
    complain(`${name}: the snapshot failed: ${error.message}`);
  }
}
