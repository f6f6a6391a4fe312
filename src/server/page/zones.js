/*
 * The zones of the stream in the large view: the list, the editor's buttons, and saving. A change is shown at once and saved
 * in the background; if the service refuses it, the zones are shown as they were.
 */
import { announce, byId, complain, icon, make, openDialog, setText } from "./dom.js";
import { changeLists, textOf } from "./lists.js";
import { session } from "./session.js";
import { percent } from "./words.js";
import { ZoneView } from "./zone-view.js";

/** After a change, the list of streams can be older than the change for this time. */
const SETTLE_MS = 2000;
const MOST_UNDONE = 30;
const SHOWN_KEY = "maskcast.zones";

const view = new ZoneView({
  select: (zone) => onSelect(zone),
  change: (zone, polygon, before) => reshape(zone, polygon, before),
  remove: (zone) => removeZone(zone),
  add: (polygon) => (polygon ? askName(null, polygon) : showTools()),
});

let name = null;
let report = null;
/** Copies of the zones: the newest of the service with the changes that are being saved. */
let zones = [];
let saving = 0;
/** Changes whenever a stream is opened: a change that was begun before no longer concerns what is shown. */
let visit = {};
let changedAt = -Infinity;
/** Changes that can be undone, the newest last: `{text, change}`. */
let undone = [];
/** The shares of the newest mask by zone. */
let shares = {};

/** The element to show above the video. */
export const layer = view.root;

/** Shows the zones of a stream; null hides them. */
export function open(stream) {
  view.cancelDrawing();
  view.select(null);
  [name, report, zones, undone, shares] = [stream, null, [], [], {}];
  [saving, changedAt, visit] = [0, -Infinity, {}];
  show();
}

/** Takes the zones from a report of the stream. `size` is that of the shown picture, null if none is shown. */
export function update(next, size) {
  report = next;
  if (saving === 0 && performance.now() - changedAt > SETTLE_MS) take(next.config?.zone);
  picture = size ?? (next.width ? [next.width, next.height] : picture);
  show();
}

let picture = [16, 9];

const take = (list) => (zones = structuredClone(list ?? []));

/** Shows the shares of the newest mask: `{zone: {class: share}}`. */
export function showShares(next) {
  shares = next;
  for (const row of byId("zones-list").children) setText(row.querySelector(".zone-shares"), sharesOf(row.dataset.zone));
}

/* ---- Display ---- */

const isShown = () => byId("zones-shown").checked;
const mayEdit = () => session.mayOperate() && Boolean(report?.config);

function show() {
  layer.classList.toggle("unused", !isShown());
  const active = (report?.rules ?? []).filter((rule) => rule.state === "active" && rule.zone !== null);
  view.show(zones, { editable: mayEdit() && isShown(), alarms: new Set(active.map((rule) => rule.zone)), size: picture });
  showList();
  showTools();
}

function sharesOf(zone) {
  const found = Object.entries(shares[zone] ?? {}).filter(([, share]) => share >= 0.0005);
  if (!shares[zone]) return "no current mask";
  return found.sort(([, a], [, b]) => b - a).slice(0, 4).map(([entry, share]) => `${entry} ${percent(share)}`).join(" · ");
}

/** The list is rebuilt only when names or rights change, so that the focus stays. */
function showList() {
  const list = byId("zones-list");
  const key = JSON.stringify([zones.map((zone) => zone.name), mayEdit()]);
  if (list.dataset.key !== key) {
    const focused = document.activeElement?.closest?.("#zones-list li")?.dataset.zone;
    list.dataset.key = key;
    list.replaceChildren(...zones.map(row));
    if (focused !== undefined) (list.querySelector(`[data-zone="${CSS.escape(focused)}"] button`) ?? byId("zone-add")).focus({ preventScroll: true });
  }
  for (const entry of list.children) {
    setText(entry.querySelector(".zone-shares"), sharesOf(entry.dataset.zone));
    const button = entry.querySelector(".zone-select");
    if (button) button.ariaPressed = String(entry.dataset.zone === view.selected);
  }
  const hint = zones.length > 0 ? "" : mayEdit() ? "A zone is a part of the picture. Its shares are measured, and rules can watch it." : "This stream has no zones.";
  byId("zones-hint").hidden = hint === "";
  setText(byId("zones-hint"), hint);
  byId("zones-shown-row").hidden = zones.length === 0 && isShown();
}

function row(zone) {
  const below = make("span", { className: "zone-shares" });
  if (!mayEdit()) return make("li", { dataset: { zone: zone.name } }, make("span", { className: "zone-label" }, zone.name), below);
  const select = make("button", { type: "button", className: "zone-select zone-label", title: "Show its corners" }, zone.name);
  select.addEventListener("click", () => {
    showZones(true);
    view.select(view.selected === zone.name ? null : zone.name);
  });
  const rename = make("button", { type: "button", className: "button quiet square", title: "Rename", "aria-label": `Rename zone ${zone.name}` }, icon("pen"));
  rename.addEventListener("click", () => askName(zone.name, null));
  const bin = make("button", { type: "button", className: "button quiet square", title: "Delete", "aria-label": `Delete zone ${zone.name}` }, icon("bin"));
  bin.addEventListener("click", () => removeZone(zone.name));
  return make("li", { dataset: { zone: zone.name } }, select, rename, bin, below);
}

/** The buttons below the video while a zone is drawn or selected. */
function showTools() {
  const isDrawing = view.isDrawing;
  const selected = view.selected;
  byId("zone-tools").hidden = !isDrawing && selected === null;
  setText(byId("zone-tools-text"), isDrawing ? "New zone: click its corners" : selected === null ? "" : `Zone ${selected}: move it or its corners`);
  byId("zone-close").hidden = byId("zone-back").hidden = !isDrawing;
  byId("zone-rename").hidden = byId("zone-delete").hidden = isDrawing;
  setText(byId("zone-cancel"), isDrawing ? "Cancel" : "Done");
  byId("zone-add").hidden = !mayEdit();
  byId("zone-add").disabled = isDrawing;
  const last = undone.at(-1);
  byId("zone-undo").hidden = !mayEdit() || !last;
  if (last) setText(byId("zone-undo"), `Undo: ${last.text}`);
}

function onSelect(zone) {
  if (zone !== null) announce(`Zone ${zone}: Tab goes to its corners, arrows move it`);
  showList();
  showTools();
}

function showZones(now) {
  byId("zones-shown").checked = now;
  try {
    localStorage.setItem(SHOWN_KEY, now ? "on" : "off");
  } catch {
    // No storage: it lasts until the page is closed.
  }
  if (!now) view.cancelDrawing();
  if (!now) view.select(null);
  show();
}

/* ---- Changes ---- */

/** Saves a change of the lists; `undo`, if given, is the change that reverses it. Throws what the service refuses. */
async function save(change, undo) {
  const begun = visit;
  saving += 1;
  let answer = null;
  try {
    answer = await changeLists(name, change);
    if (begun === visit && undo) undone = [...undone, undo].slice(-MOST_UNDONE);
  } finally {
    if (begun === visit) {
      saving -= 1;
      changedAt = answer ? performance.now() : -Infinity;
      if (saving === 0) take((answer ?? report)?.config?.zone);
      show();
    }
  }
}

/** The same; complains about what the service refuses. */
async function attempt(what, change, undo) {
  const stream = name;
  try {
    await save(change, undo);
    return true;
  } catch (error) {
    complain(`${stream}: ${what}: ${textOf(error)}`);
    return false;
  }
}

const withPolygon = (zone, polygon) => ({ zone: list }) => ({ zone: list.map((old) => (old.name === zone ? { ...old, polygon } : old)) });
const withoutZone = (zone) => ({ zone: list }) => ({ zone: list.filter((old) => old.name !== zone) });
const withZone = (zone, at) => ({ zone: list }) => ({ zone: [...list.slice(0, at), zone, ...list.slice(at)] });

/** The rules of a zone follow its new name. */
const withName = (before, after) => ({ zone, rule }) => {
  const patch = { zone: zone.map((old) => (old.name === before ? { ...old, name: after } : old)) };
  if (rule.some((old) => old.zone === before)) patch.rule = rule.map((old) => (old.zone === before ? { ...old, zone: after } : old));
  return patch;
};

function reshape(zone, polygon, before) {
  attempt(`zone ${zone} was not changed`, withPolygon(zone, polygon), { text: `change of ${zone}`, change: withPolygon(zone, before) });
}

async function removeZone(zone) {
  const at = zones.findIndex((old) => old.name === zone);
  if (at < 0) return;
  const before = structuredClone(zones[at]);
  const hadFocus = layer.contains(document.activeElement);
  if (view.selected === zone) view.select(null);
  zones = zones.filter((old) => old.name !== zone);
  show();
  const isGone = await attempt(`zone ${zone} was not deleted`, withoutZone(zone), { text: `delete ${zone}`, change: withZone(before, at) });
  if (isGone) announce(`Zone ${zone} deleted. It can be restored with Undo`);
  if (isGone && hadFocus) byId("zone-undo").focus({ preventScroll: true });
}

async function undo() {
  const last = undone.pop();
  showTools();
  if (last && (await attempt(`“${last.text}” was not undone`, last.change))) announce(`Undone: ${last.text}`);
  if (byId("zone-undo").hidden && document.activeElement === document.body) byId("zone-add").focus({ preventScroll: true });
}

/* ---- Name ---- */

const dialog = byId("zone-name");
/** Name of the zone that is renamed, or the polygon of a new one. */
let asked = { before: null, polygon: null };

function freeName() {
  let number = zones.length + 1;
  while (zones.some((zone) => zone.name === `Zone ${number}`)) number += 1;
  return `Zone ${number}`;
}

function askName(before, polygon) {
  asked = { before, polygon };
  setText(byId("zone-name-title"), before === null ? "New zone" : "Rename zone");
  setText(byId("zone-name-go"), before === null ? "Add zone" : "Rename");
  byId("zone-name-field").value = before ?? freeName();
  failName("");
  showTools();
  openDialog(dialog);
  byId("zone-name-field").select();
}

function failName(text) {
  byId("zone-name-error").hidden = text === "";
  setText(byId("zone-name-error"), text);
}

byId("zone-name-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { before, polygon } = asked;
  const after = byId("zone-name-field").value;
  const go = byId("zone-name-go");
  if (after === before) {
    dialog.close();
    return;
  }
  go.disabled = true;
  failName("");
  try {
    if (polygon) await save(({ zone }) => ({ zone: [...zone, { name: after, polygon }] }), { text: `add ${after}`, change: withoutZone(after) });
    else await save(withName(before, after), { text: `rename ${before}`, change: withName(after, before) });
    dialog.close();
    if (polygon) view.focus(after);
  } catch (error) {
    failName(textOf(error));
  }
  go.disabled = false;
});

/* ---- Controls ---- */

byId("zone-add").addEventListener("click", () => {
  showZones(true);
  view.startDrawing();
  showTools();
  byId("stage").scrollIntoView({ block: "nearest" });
});
byId("zone-close").addEventListener("click", () => view.closeDrawing());
byId("zone-back").addEventListener("click", () => view.removeLastCorner());
byId("zone-cancel").addEventListener("click", () => (view.isDrawing ? view.cancelDrawing() : view.select(null)));
byId("zone-rename").addEventListener("click", () => askName(view.selected, null));
byId("zone-delete").addEventListener("click", () => removeZone(view.selected));
byId("zone-undo").addEventListener("click", undo);
byId("zones-shown").addEventListener("change", () => showZones(byId("zones-shown").checked));
session.addEventListener("change", show);

/** Handles a key of the large view. Returns whether it was handled. */
export function onKey(event) {
  if (event.key === "Escape" && view.isDrawing) view.cancelDrawing();
  else if (event.key === "Escape" && view.selected !== null) view.select(null);
  else return false;
  return true;
}

try {
  byId("zones-shown").checked = localStorage.getItem(SHOWN_KEY) !== "off";
} catch {
  // No storage: zones are shown.
}
