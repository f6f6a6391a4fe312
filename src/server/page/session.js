/* Who is there, and what they may do. */
import { Refusal, door, getJson, postJson, remove, setToken, whenForbidden } from "./api.js";
import { byId, complain, make, setText } from "./dom.js";

const PATH = "/api/v1/session";

/** An event "change" tells that somebody came or left. */
export const session = new EventTarget();

/** "unknown" before the first answer; "open": may see the streams; "closed": has to log in. */
session.state = "unknown";
session.user = null;
session.role = null;
/** False where the service knows no users at all. */
session.hasLogin = false;

/** What changes something is for operators. */
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

/** Asks the service who this is. Throws when it does not answer. */
export async function ask() {
  try {
    const answer = await getJson(PATH, { quiet: true });
    // Where there are no users yet, nobody can log in.
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
  // On a phone there is room for the name only.
  const role = make("span", { className: "role" }, ` · ${session.role}`);
  byId("who").replaceChildren(...(session.user === null ? [] : [session.user, role]));
  byId("log-out").hidden = !open || session.user === null;
  byId("log-in").hidden = !open || session.user !== null || !session.hasLogin;
  byId("add").hidden = !session.mayOperate();
}

/* ---- Logging in ---- */

const form = byId("login-form");
let countdown = null;

function fail(text) {
  byId("login-error").hidden = text === "";
  setText(byId("login-error"), text);
}

/** Too many tries: says how long it takes, and opens the form again when it is over. */
function hold(seconds) {
  const until = performance.now() + 1000 * seconds;
  const tell = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    byId("login-go").disabled = left > 0;
    fail(left > 0 ? `Too many attempts. Try again in ${left} s.` : "");
    if (left <= 0) clearInterval(countdown);
  };
  clearInterval(countdown);
  countdown = setInterval(tell, 1000);
  tell();
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

/** Shows the form, ready to type. */
export function openLogin() {
  byId("login").hidden = false;
  // Only there for those who came by "Log in" and may see the streams without.
  byId("login-user").focus();
}
