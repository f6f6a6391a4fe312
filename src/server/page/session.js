/* The logged-in user and the user's role. */
import { Refusal, door, getJson, postJson, remove, setToken, whenForbidden } from "./api.js";
import { byId, complain, make, setText } from "./dom.js";

const PATH = "/api/v1/session";

/** Dispatches the event "change" when user, role or state change. */
export const session = new EventTarget();

/** "unknown" before the first response; "open": the streams may be shown; "closed": a login is required. */
session.state = "unknown";
session.user = null;
session.role = null;
/** Whether the service has users. */
session.hasLogin = false;

/** Whether the user may change anything. */
session.mayOperate = () => session.state === "open" && session.role !== "viewer";

function set(state, answer = {}) {
  const before = [session.state, session.user, session.role].join();
  session.state = state;
  session.user = answer.user ?? null;
  session.role = answer.role ?? null;
  setToken(answer.csrf);
  show();
  if ([session.state, session.user, session.role].join() !== before) session.dispatchEvent(new Event("change"));
}

/** Requests user and role from the service. Throws when it does not respond. */
export async function ask() {
  try {
    const answer = await getJson(PATH, { quiet: true });
    // Without users there is no login.
    session.hasLogin = answer.login ?? true;
    set("open", answer);
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      session.hasLogin = true;
      set("closed");
    } else if (error instanceof Refusal && error.isMissing) {
      session.hasLogin = false;
      set("open");
    } else {
      throw error;
    }
  }
}

function show() {
  const open = session.state === "open";
  byId("who").hidden = !open || session.user === null;
  // In a separate element, because narrow screens show only the name.
  const role = make("span", { className: "role" }, ` · ${session.role}`);
  byId("who").replaceChildren(...(session.user === null ? [] : [session.user, role]));
  byId("log-out").hidden = !open || session.user === null;
  byId("log-in").hidden = !open || session.user !== null || !session.hasLogin;
  byId("add").hidden = byId("models-open").hidden = !session.mayOperate();
}

/* ---- Login ---- */

const form = byId("login-form");
let countdown = null;

function fail(text) {
  byId("login-error").hidden = text === "";
  setText(byId("login-error"), text);
}

/** After too many attempts: shows the remaining time and enables the form when it has passed. */
function hold(seconds) {
  const until = performance.now() + 1000 * seconds;
  const showRest = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    byId("login-go").disabled = left > 0;
    fail(left > 0 ? `Too many attempts. Try again in ${left} s.` : "");
    if (left <= 0) clearInterval(countdown);
  };
  clearInterval(countdown);
  countdown = setInterval(showRest, 1000);
  showRest();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const go = byId("login-go");
  if (go.disabled) return;
  go.disabled = true;
  fail("");
  try {
    const answer = await postJson(PATH, { user: byId("login-user").value, password: byId("login-password").value }, { quiet: true });
    go.disabled = false;
    form.reset();
    set("open", answer);
  } catch (error) {
    go.disabled = false;
    byId("login-password").value = "";
    if (error.status === 429) hold(error.wait ?? 30);
    else fail(error.status === 401 ? "User or password is wrong." : error.message);
    byId("login-password").focus();
  }
});

byId("log-out").addEventListener("click", async () => {
  try {
    await remove(PATH);
  } catch (error) {
    if (error.status !== 401) {
      complain(`Not logged out: ${error.message}`);
      return;
    }
  }
  await ask().catch(() => {});
});

byId("log-in").addEventListener("click", () => set("closed"));
byId("login-cancel").addEventListener("click", () => ask().catch((error) => complain(error.message)));
door.addEventListener("closed", () => ask().catch(() => {}));
whenForbidden(ask);

/** Shows the form and focuses its first field. */
export function openLogin() {
  byId("login").hidden = false;
  // Hidden here: it is shown only if the streams are visible without a login.
  byId("login-user").focus();
}
