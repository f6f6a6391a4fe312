/* The service's API: requests, the session's token, and what is refused. */

/** A change may have to wait until a stream has come to an end. */
const GET_LIMIT_MS = 5000;
const CHANGE_LIMIT_MS = 20_000;

let token = null;
let renew = async () => {};

/** Tells of a session that has ended: an event "closed" when an answer was 401. */
export const door = new EventTarget();

/** What the service refuses (RFC 9457), or that it does not answer (`status` is 0). */
export class Refusal extends Error {
  constructor(status, message, { errors = [], wait = null } = {}) {
    super(message);
    this.status = status;
    /** What is wrong with which field. */
    this.errors = errors;
    /** Seconds until another try makes sense. */
    this.wait = wait;
  }

  /** The service, or this version of it, does not offer that. */
  get isMissing() {
    return this.status === 404 || this.status === 405 || this.status === 501;
  }
}

/** The token that changing requests carry, so that another site's page cannot send them. */
export function setToken(value) {
  token = value ?? null;
}

/** `action` finds out the token anew: somebody has logged in again in another window, or may do less than before. */
export function whenForbidden(action) {
  renew = action;
}

/** One request. Gives the response when its status is 2xx, and throws a [Refusal] otherwise. */
export async function request(method, path, options = {}) {
  const sent = token;
  try {
    return await send(method, path, options);
  } catch (refusal) {
    if (refusal.status !== 403 || method === "GET") throw refusal;
    await renew().catch(() => {});
    if (token === sent) throw refusal;
    return send(method, path, options);
  }
}

async function send(method, path, { body, type = "application/json", keepalive = false, quiet = false }) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = type;
  if (token !== null && method !== "GET") headers["X-CSRF-Token"] = token;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      keepalive,
      cache: "no-store",
      body: body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body,
      signal: AbortSignal.timeout(method === "GET" ? GET_LIMIT_MS : CHANGE_LIMIT_MS),
    });
  } catch (error) {
    throw new Refusal(0, error.name === "TimeoutError" ? "Maskcast does not answer" : "no connection to Maskcast");
  }
  if (response.ok) return response;
  const refusal = await read(response);
  if (refusal.status === 401 && !quiet) door.dispatchEvent(new Event("closed"));
  throw refusal;
}

/** What a response that is not 2xx says. */
export async function read(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Something between the service and here has answered, in words of its own.
  }
  const wait = Number.parseInt(response.headers.get("Retry-After"), 10);
  const message = problem.detail ?? problem.title ?? `${response.status} ${response.statusText}`;
  return new Refusal(response.status, message, { errors: problem.errors ?? [], wait: Number.isNaN(wait) ? null : wait });
}

async function json(response) {
  return response.status === 204 ? null : response.json();
}

export const getJson = async (path, options) => json(await request("GET", path, options));
export const postJson = async (path, body, options) => json(await request("POST", path, { body, ...options }));
export const patchJson = async (path, body, options) => json(await request("PATCH", path, { body, ...options }));
export const remove = (path) => request("DELETE", path);

/** `/api/v1/streams/NAME` and what follows. */
export const ofStream = (name, rest = "") => `/api/v1/streams/${encodeURIComponent(name)}${rest}`;
