/*
 * Labels that the service does not have yet, kept in the browser's database (IndexedDB) until it has them. A draft belongs to a
 * frame, the revision that it was drawn on, and a window, so that two windows do not replace each other's.
 */
const NAME = "maskcast-labels";
const STORE = "drafts";
const TAB_KEY = "maskcast.window";

/** Names this window; the same after it is loaded again. */
const tab = (() => {
  const made = Array.from(crypto.getRandomValues(new Uint32Array(2)), (part) => part.toString(36)).join("");
  try {
    // A duplicated window begins with the storage of the first one, but is not a reload.
    const [navigation] = performance.getEntriesByType("navigation");
    const known = navigation?.type === "reload" ? sessionStorage.getItem(TAB_KEY) : null;
    sessionStorage.setItem(TAB_KEY, known ?? made);
    return known ?? made;
  } catch {
    return made;
  }
})();

let opened = null;

/** A request of the database as a promise. */
const settled = (request) => new Promise((resolve, reject) => {
  request.addEventListener("success", () => resolve(request.result));
  request.addEventListener("error", () => reject(request.error));
});

function database() {
  opened ??= (async () => {
    const request = indexedDB.open(NAME, 1);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore(STORE, { keyPath: "key" }).createIndex("frame", "frame");
    });
    const found = await settled(request);
    // Another version of the page may need to change it.
    found.addEventListener("versionchange", () => found.close());
    found.addEventListener("close", () => (opened = null));
    return found;
  })();
  opened.catch(() => (opened = null));
  return opened;
}

const frameKey = (stream, id) => JSON.stringify([stream, id]);

async function store(mode) {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

/**
 * Keeps the pixels of a label, and replaces those that this window has kept for the same revision. Resolves when they are stored.
 * `pixels` are copied at once.
 */
export async function keep({ stream, id, revision, pixels }) {
  const copy = pixels.slice();
  const entry = { key: JSON.stringify([stream, id, revision, tab]), frame: frameKey(stream, id), stream, id, revision, pixels: copy, time: Date.now() };
  await settled((await store("readwrite")).put(entry));
}

/** The drafts of a frame, the newest first: `{key, revision, pixels, time}`. */
export async function draftsOf(stream, id) {
  const found = await settled((await store("readonly")).index("frame").getAll(frameKey(stream, id)));
  return found.sort((a, b) => b.time - a.time);
}

/** Removes drafts that the service has, by their keys. */
export async function forget(keys) {
  const drafts = await store("readwrite");
  await Promise.all(keys.map((key) => settled(drafts.delete(key))));
}

/** The frames of a stream that have drafts. */
export async function framesWithDrafts(stream) {
  const all = await settled((await store("readonly")).getAll());
  return new Set(all.filter((draft) => draft.stream === stream).map((draft) => draft.id));
}
