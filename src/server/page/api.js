/* Requests to the service's API, the session's CSRF token, and error responses. */

/** Time limits of requests. A change may have to wait until a stream has stopped. */
const GET_LIMIT_MS = 5000;
const CHANGE_LIMIT_MS = 20_000;

let token = null;
let renew = async () => {};

/**
 * Dispatches the event "closed" when a response has status 401: the session has ended. The page dispatches "connected" when the
 * service responds again, and when a user has logged in.
 */
export const door = new EventTarget();

/** An error response (RFC 9457), or no response (`status` is 0). */
export class Refusal extends Error {
  constructor(status, message, { errors = [], wait = null } = {}) {
    super(message);
    this.status = status;
    /** Errors of single settings. */
    this.errors = errors;
    /** Seconds to wait before the next attempt; null if unknown. */
    this.wait = wait;
  }

  /** Whether the service, or this version of it, does not offer the operation. */
  get isMissing() {
    return this.status === 404 || this.status === 405 || this.status === 501;
  }
}

/** Sets the CSRF token, without which the service refuses requests that change something. */
export function setToken(value) {
  token = value ?? null;
}

/** Sets the function that requests the token again: it changes with a login in another window, and so may the role. */
export function whenForbidden(action) {
  renew = action;
}

/** Sends a request. `limit` is its time limit in milliseconds. Returns a response with status 2xx, throws a [Refusal] otherwise. */
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

async function send(method, path, { body, type = "application/json", headers: added = {}, limit, keepalive = false, quiet = false }) {
  const headers = { ...added };
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
      signal: AbortSignal.timeout(limit ?? (method === "GET" ? GET_LIMIT_MS : CHANGE_LIMIT_MS)),
    });
  } catch (error) {
    throw new Refusal(0, error.name === "TimeoutError" ? "Maskcast did not respond in time" : "no connection to Maskcast");
  }
  if (response.ok) return response;
  const refusal = await read(response);
  if (refusal.status === 401 && !quiet) door.dispatchEvent(new Event("closed"));
  throw refusal;
}

/** The [Refusal] for a response whose status is not 2xx. */
export async function read(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not a problem document: the response comes from a proxy.
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

/** The path `/api/v1/streams/NAME`, followed by `rest`. */
export const ofStream = (name, rest = "") => `/api/v1/streams/${encodeURIComponent(name)}${rest}`;
